//! The page: one file, whose script and style the browser takes only because of their sums.

use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderValue, header};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

use super::answer::{Answer, whole};

const HTML: &str = include_str!("page.html");

/// The page and its policy.
#[derive(Clone, Debug)]
pub(super) struct Page {
    policy: HeaderValue,
}

// === impl Page ===

impl Page {
    pub(super) fn new() -> Self {
        let mut policy = "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
            frame-ancestors 'none'; require-trusted-types-for 'script'"
            .to_owned();
        for (directive, tag) in [("script-src", "script"), ("style-src", "style")] {
            // Writing to a String cannot fail.
            let _ = write!(policy, "; {directive}");
            let content = between(HTML, tag).unwrap_or_default();
            let _ = match sum(content.as_bytes()) {
                Some(sum) => write!(policy, " 'sha256-{sum}'"),
                None => write!(policy, " 'none'"),
            };
        }
        let policy =
            HeaderValue::try_from(policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
        Self { policy }
    }

    pub(super) fn answer(&self) -> Answer {
        let mut answer = whole("text/html; charset=utf-8", Bytes::from_static(HTML.as_bytes()));
        answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        super::set(&mut answer, header::X_FRAME_OPTIONS, "DENY");
        answer
    }
}

/// What stands in an element.
fn between<'a>(html: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = html.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(content, _)| content)
}

/// SHA-256 in base64.
fn sum(content: &[u8]) -> Option<String> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13()?;
    Some(base64(suite.common.hash_provider.hash(content).as_ref()))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = DIGITS.get((bits >> (18 - 6 * at) & 63) as usize).copied().unwrap_or(b'=');
            text.push(if at > group.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn base64_and_sha_256_are_as_everybody_has_them() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(sum(b"").unwrap(), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn the_page_has_one_script_and_one_style_and_nothing_from_elsewhere() {
        for tag in ["<script>", "<style>"] {
            assert_eq!(HTML.matches(tag).count(), 1, "{tag}");
        }
        for never in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "http://",
            "https://",
            "localStorage",
            "document.cookie",
            " style=",
            " onclick",
            "<link",
            "<img",
            "src=",
        ] {
            assert!(!HTML.contains(never), "{never}");
        }
    }
}
