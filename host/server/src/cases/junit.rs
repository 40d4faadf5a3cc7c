//! The report of a table in the form that every CI server reads.

use std::fmt::Write;

use super::Report;

/// A test suite of JUnit's XML: a test per case, with what is different as its failure.
#[must_use]
pub fn junit(suite: &str, report: &Report) -> String {
    let (suite, tests, failed) = (escaped(suite), report.cases.len(), report.failed);
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{tests}\" failures=\"{failed}\">\n\
         \x20 <testsuite name=\"{suite}\" tests=\"{tests}\" failures=\"{failed}\">\n"
    );
    for case in &report.cases {
        let name = escaped(&case.name);
        let differences = case.differences.iter().map(ToString::to_string);
        let words: Vec<_> = differences.chain(case.error.clone()).collect();
        // A string takes whatever is written to it.
        let _ = if case.passed {
            writeln!(xml, "    <testcase classname=\"{suite}\" name=\"{name}\"/>")
        } else {
            let words = escaped(&words.join("\n"));
            writeln!(
                xml,
                "    <testcase classname=\"{suite}\" name=\"{name}\">\n      <failure message=\"{words}\"/>\n    </testcase>"
            )
        };
    }
    xml + "  </testsuite>\n</testsuites>"
}

/// Text for an attribute. What XML 1.0 cannot hold is replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push(char::REPLACEMENT_CHARACTER),
            letter if letter.is_ascii_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cases::{CaseReport, Difference};

    #[test]
    fn a_failure_tells_what_is_different() {
        let case = |name: &str, differences: Vec<Difference>| CaseReport {
            name: name.to_owned(),
            passed: differences.is_empty(),
            decided: None,
            decision: None,
            differences,
            error: None,
        };
        let different = Difference {
            field: "stream".to_owned(),
            expected: json!("a"),
            got: json!("b"),
        };
        let report = Report {
            passed: 1,
            failed: 1,
            cases: vec![
                case("1 < 2 & \"3\"\u{1b}", vec![]),
                case("b", vec![different]),
            ],
        };
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites tests=\"2\" failures=\"1\">
  <testsuite name=\"cases.toml\" tests=\"2\" failures=\"1\">
    <testcase classname=\"cases.toml\" name=\"1 &lt; 2 &amp; &quot;3&quot;\u{fffd}\"/>
    <testcase classname=\"cases.toml\" name=\"b\">
      <failure message=\"stream: expected &quot;a&quot;, got &quot;b&quot;\"/>
    </testcase>
  </testsuite>
</testsuites>";
        assert_eq!(junit("cases.toml", &report), expected);
    }
}
