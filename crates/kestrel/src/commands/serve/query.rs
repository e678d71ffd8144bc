//! What is asked of `/predict` after the question mark.

use std::borrow::Cow;

/// Classes that are named where the query does not say.
const TOP: usize = 5;
/// The value of `cam` that stands for the likeliest class.
const LIKELIEST: &str = "top";

/// `top=N` and `cam=CLASS|top`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PredictQuery {
    /// How many classes are named.
    pub(super) top: usize,
    /// Whose evidence is shown.
    pub(super) cam: Option<Cam>,
}

/// A class to explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cam {
    Likeliest,
    Class(usize),
}

impl PredictQuery {
    /// Of names and values; or a sentence that says what is wrong. A class that is called `top` goes before the likeliest.
    pub(super) fn parse<'a>(
        pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
        classes: &[String],
    ) -> Result<Self, String> {
        let mut query = Self { top: TOP, cam: None };
        for (name, value) in pairs {
            match name.as_ref() {
                "top" => {
                    let top = value.parse().ok().filter(|top| *top > 0);
                    query.top = top.ok_or_else(|| format!("top is {value:?}, but must be a number from 1 on"))?;
                }
                "cam" => {
                    let class = classes.iter().position(|class| *class == value).map(Cam::Class);
                    let class = class.or((value == LIKELIEST).then_some(Cam::Likeliest));
                    let unknown =
                        || format!("no class is called {value:?}; GET /model names them, and top is the likeliest");
                    query.cam = Some(class.ok_or_else(unknown)?);
                }
                other => return Err(format!("{other:?} is none of the names that there are: top and cam")),
            }
        }
        Ok(query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<(usize, Option<Cam>), String> {
        let classes = ["cat", "a & b"].map(str::to_owned);
        PredictQuery::parse(form_urlencoded::parse(query.as_bytes()), &classes).map(|query| (query.top, query.cam))
    }

    #[test]
    fn names_and_values() {
        assert_eq!(parse(""), Ok((5, None)));
        assert_eq!(parse("top=3&cam=top"), Ok((3, Some(Cam::Likeliest))));
        assert_eq!(parse("cam=a+%26%20b"), Ok((5, Some(Cam::Class(1)))));
        for (query, word) in [
            ("top=0", "from 1 on"),
            ("top=-1", "from 1 on"),
            ("top=many", "from 1 on"),
            ("cam=dog", "no class is called"),
            ("cam", "no class is called"),
            ("k=3", "top and cam"),
        ] {
            let sentence = parse(query).unwrap_err();
            assert!(sentence.contains(word), "{query}: {sentence}");
        }
    }

    #[test]
    fn a_class_called_top_can_be_explained() {
        let classes = ["cat", "top"].map(str::to_owned);
        let pairs = form_urlencoded::parse(b"cam=top");
        let query = PredictQuery::parse(pairs, &classes).unwrap();
        assert_eq!(query.cam, Some(Cam::Class(1)));
    }
}
