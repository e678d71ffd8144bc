//! The page on which pictures are dropped: one HTML file that needs nothing else. What it says of the network it asks of the server.

use kestrel_train::report::STYLE;

const PAGE: &str = include_str!("page.html");
const OWN_STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page.
pub(super) fn page() -> String {
    let style = [STYLE, OWN_STYLE].concat();
    PAGE.replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{style}", &style)
        .replace("{script}", SCRIPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_fetches_nothing_from_elsewhere() {
        let page = page();
        assert!(page.ends_with("</html>\n") && page.contains("/predict"));
        for part in ["{version}", "{style}", "{script}", "http:", "https:", "@import", "url("] {
            assert!(!page.contains(part), "{part}");
        }
    }
}
