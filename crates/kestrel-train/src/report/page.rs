//! The frame of a page: one HTML file that needs nothing else, with its style, its script and tables.

use super::escape::escape;

/// The style sheet of a report, for other pages that are to look like one.
pub const STYLE: &str = include_str!("assets/report.css");
const SCRIPT: &str = include_str!("assets/report.js");

/// A page under construction.
#[derive(Default)]
pub(super) struct Page {
    body: String,
    /// Each section's place and name, for the list at the top.
    sections: Vec<(String, String)>,
}

impl Page {
    /// Begins a section with its heading.
    pub(super) fn section(&mut self, name: &str) {
        if !self.sections.is_empty() {
            self.body.push_str("</section>\n");
        }
        let id = name.to_lowercase().replace(' ', "-");
        self.push(&format!(
            "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{}</h2>\n",
            escape(name)
        ));
        self.sections.push((id, name.to_owned()));
    }

    /// Adds HTML.
    pub(super) fn push(&mut self, html: &str) {
        self.body.push_str(html);
    }

    /// Adds a paragraph of explanation.
    pub(super) fn note(&mut self, text: &str) {
        self.push(&format!("<p class=\"note\">{}</p>\n", escape(text)));
    }

    /// The whole file. `kind` is what stands over the title, `about` what stands below it.
    pub(super) fn finish(self, kind: &str, title: &str, about: &str, cards: &[Card]) -> String {
        let links: Vec<String> = self
            .sections
            .iter()
            .map(|(id, name)| format!("<a href=\"#{id}\">{}</a>", escape(name)))
            .collect();
        let end = if self.sections.is_empty() { "" } else { "</section>\n" };
        let cards: String = cards.iter().map(Card::html).collect();
        let cards = if cards.is_empty() {
            cards
        } else {
            format!("<ul class=\"cards\">\n{cards}</ul>\n")
        };
        let [kind, title, about] = [kind, title, about].map(escape);
        format!(
            "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta name=\"generator\" content=\"Kestrel {version}\">
<title>{title} · Kestrel</title>
<link rel=\"icon\" href=\"data:,\">
<style>
{STYLE}</style>
</head>
<body>
<header>
<p class=\"kind\">{kind}</p>
<h1>{title}</h1>
<p>{about}</p>
<nav aria-label=\"Sections\">{links}</nav>
</header>
<main>
{cards}{body}{end}</main>
<footer>Made by Kestrel {version}.</footer>
<script>
{SCRIPT}</script>
</body>
</html>
",
            version = env!("CARGO_PKG_VERSION"),
            links = links.join("\n"),
            body = self.body,
        )
    }
}

/// A number that is seen first.
pub(super) struct Card {
    pub(super) value: String,
    pub(super) name: String,
}

impl Card {
    pub(super) fn new(value: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            name: name.into(),
        }
    }

    fn html(&self) -> String {
        format!(
            "<li><b>{}</b><span>{}</span></li>\n",
            escape(&self.value),
            escape(&self.name)
        )
    }
}

/// A table: the first column holds names, the others numbers.
#[derive(Default)]
pub(super) struct Table {
    rows: String,
    columns: usize,
}

impl Table {
    /// With the names of its columns.
    pub(super) fn new(columns: &[&str]) -> Self {
        let cells: String = columns
            .iter()
            .enumerate()
            .map(|(i, name)| format!("<th scope=\"col\"{}>{}</th>", class(i > 0, false), escape(name)))
            .collect();
        Self {
            rows: format!("<thead><tr>{cells}</tr></thead>\n<tbody>\n"),
            columns: columns.len(),
        }
    }

    /// Adds a row; `key` is HTML before the name.
    pub(super) fn row(&mut self, key: &str, cells: &[String]) {
        self.emphasised(key, cells, &[]);
    }

    /// Adds a row in which the cells of these columns are the best of theirs.
    pub(super) fn emphasised(&mut self, key: &str, cells: &[String], best: &[usize]) {
        self.rows.push_str("<tr>");
        for (i, cell) in cells.iter().take(self.columns).enumerate() {
            let cell = escape(cell);
            self.rows.push_str(&if i == 0 {
                format!("<th scope=\"row\">{key}{cell}</th>")
            } else {
                format!("<td{}>{cell}</td>", class(true, best.contains(&i)))
            });
        }
        self.rows.push_str("</tr>\n");
    }

    /// Adds the row that sums up the others.
    pub(super) fn total(&mut self, cells: &[String]) {
        let start = self.rows.len();
        self.row("", cells);
        self.rows.replace_range(start..start + 3, "<tr class=\"total\"");
    }

    pub(super) fn html(&self) -> String {
        format!("<table>\n{}</tbody>\n</table>\n", self.rows)
    }
}

fn class(number: bool, best: bool) -> &'static str {
    match (number, best) {
        (true, true) => " class=\"n best\"",
        (true, false) => " class=\"n\"",
        (false, _) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_needs_nothing_else_and_its_text_is_escaped() {
        let mut page = Page::default();
        page.section("What it sees");
        page.note("a < b");
        page.section("Data");
        let html = page.finish("Run", "<b>", "about", &[Card::new("1%", "x & y")]);
        assert!(html.contains("<h1>&lt;b&gt;</h1>") && html.contains("a &lt; b") && html.contains("x &amp; y"));
        assert!(html.contains("<a href=\"#what-it-sees\">What it sees</a>"), "{html}");
        assert_eq!(html.matches("<section").count(), html.matches("</section>").count());
        for outside in ["http:", "https:", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn tables_hold_names_then_numbers() {
        let mut table = Table::new(&["class", "F1"]);
        table.row("", &["a&b".to_owned(), "0.5".to_owned()]);
        table.total(&["all".to_owned(), "1".to_owned()]);
        let html = table.html();
        assert!(
            html.contains("<th scope=\"row\">a&amp;b</th><td class=\"n\">0.5</td>"),
            "{html}"
        );
        assert!(
            html.contains("<tr class=\"total\"><th scope=\"row\">all</th>"),
            "{html}"
        );
    }
}
