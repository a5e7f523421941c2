//! Text as words: what the index holds of messages and log lines, and what a question asks for, are cut by the same rule.
//!
//! A word is a run of letters and digits of any script, in lower case; what follows its 64th byte is left out.

use crate::history::HistoryError;

/// Most bytes of a word.
const MAX_BYTES: usize = 64;

/// Words that must all occur.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Each whole.
    pub whole: Vec<String>,
    /// The beginning of one.
    pub beginning: Option<String>,
}

/// Tells each word of a text, again where it occurs again. `buffer` is where it is built.
pub fn each(text: &str, buffer: &mut String, mut tell: impl FnMut(&str)) {
    buffer.clear();
    if text.is_ascii() {
        // Nearly all are: whole words at a time.
        for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
            if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
                buffer.clear();
                buffer.push_str(word);
                buffer.make_ascii_lowercase();
                tell(cut(buffer));
            } else {
                tell(cut(word));
            }
        }
        return;
    }
    let mut end = |buffer: &mut String| {
        if !buffer.is_empty() {
            tell(cut(buffer));
            buffer.clear();
        }
    };
    for c in text.chars() {
        if c.is_ascii() {
            if c.is_ascii_alphanumeric() {
                buffer.push(c.to_ascii_lowercase());
            } else {
                end(buffer);
            }
        } else if c == 'ς' {
            // Greek writes the small sigma so at a word's end, and the large one is the same everywhere.
            buffer.push('σ');
        } else if c.is_alphanumeric() {
            buffer.extend(c.to_lowercase());
        } else {
            end(buffer);
        }
    }
    end(buffer);
}

fn cut(word: &str) -> &str {
    &word[..word.floor_char_boundary(MAX_BYTES)]
}

// === impl Words ===

impl Words {
    /// Reads what is searched for.
    ///
    /// # Errors
    /// Where there is no word in it.
    pub fn parse(text: &str) -> Result<Self, HistoryError> {
        let mut whole = Vec::new();
        each(text, &mut String::new(), |word| whole.push(word.to_owned()));
        let beginning = match text.trim_end().strip_suffix('*') {
            Some(rest) if rest.ends_with(char::is_alphanumeric) => whole.pop(),
            _ => None,
        };
        if whole.is_empty() && beginning.is_none() {
            return Err(HistoryError::Text("has no word: letters or digits are searched for".to_owned()));
        }
        whole.sort();
        whole.dedup();
        Ok(Self { whole, beginning })
    }

    /// Whether all occur in texts.
    pub fn occur_in<'a>(&self, texts: impl Iterator<Item = &'a str>) -> bool {
        let mut found = vec![false; self.whole.len()];
        let mut begun = self.beginning.is_none();
        let mut buffer = String::new();
        for text in texts {
            each(text, &mut buffer, |word| {
                for (wanted, found) in self.whole.iter().zip(&mut found) {
                    *found |= wanted == word;
                }
                begun |=
                    self.beginning.as_ref().is_some_and(|beginning| word.starts_with(beginning.as_str()));
            });
        }
        begun && found.into_iter().all(|found| found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        each(text, &mut String::new(), |word| words.push(word.to_owned()));
        words
    }

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        assert_eq!(words("Back-off: ErrImagePull (code=42)"), ["back", "off", "errimagepull", "code", "42"]);
        assert_eq!(words("ÜBER größe\u{301} 日本"), ["über", "größe", "日本"]);
        assert_eq!(words("ΣΟΦΟΣ σοφος"), ["σοφοσ", "σοφοσ"]);
        assert_eq!(words("  --  "), Vec::<String>::new());
        assert_eq!(words(&"é".repeat(40))[0].len(), 64);
    }

    #[test]
    fn a_question_asks_for_all_its_words_and_for_the_beginning_of_the_last() {
        let asked = Words::parse("Connection REFUS*").unwrap();
        assert_eq!(asked, Words { whole: vec!["connection".into()], beginning: Some("refus".into()) });
        assert!(asked.occur_in(["refused", "connection"].into_iter()));
        assert!(!asked.occur_in(["connection"].into_iter()));
        assert!(!Words::parse("refus").unwrap().occur_in(["refused"].into_iter()));
        assert!(Words::parse(" * ").is_err() && Words::parse("").is_err());
        assert_eq!(Words::parse("a *").unwrap().beginning, None);
    }
}
