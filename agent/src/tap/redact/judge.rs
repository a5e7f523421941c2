//! Whether what a pattern matched is a secret: what is said by words, which a pattern cannot count.

use regex::Captures;

/// A key that ends so says something about a secret and does not hold it.
const ABOUT: &[&str] = &[
    "name",
    "names",
    "namespace",
    "ref",
    "type",
    "count",
    "expiry",
    "expires",
    "expiration",
    "expires_in",
    "expiresin",
    "seconds",
    "ttl",
    "length",
    "len",
    "size",
    "file",
    "path",
    "dir",
    "mount",
    "url",
    "uri",
    "endpoint",
    "policy",
    "version",
    "class",
    "kind",
    "mode",
    "enabled",
    "required",
    "limit",
    "total",
    "used",
    "reset",
    "manager",
    "store",
    "provider",
    "source",
    "status",
    "valid",
    "age",
    "error",
    "errors",
    "field",
    "at",
    "found",
    "missing",
    "review",
    "request",
    "requests",
    "audience",
    "issuer",
    "volume",
    "controller",
    "rotation",
    "reviews",
    "lister",
    "usage",
];

/// A value that is a word of prose, or nothing.
const WORDS: &[&str] = &[
    "",
    "true",
    "false",
    "null",
    "nil",
    "none",
    "undefined",
    "yes",
    "no",
    "not",
    "empty",
    "unset",
    "set",
    "missing",
    "invalid",
    "expired",
    "required",
    "incorrect",
    "wrong",
    "failed",
    "failure",
    "denied",
    "unknown",
    "error",
    "is",
    "was",
    "must",
    "too",
    "cannot",
    "could",
    "unable",
    "does",
    "the",
    "a",
    "an",
    "in",
    "for",
    "of",
    "user",
    "access",
    "authentication",
    "ok",
    "valid",
    "found",
    "unexpected",
    "malformed",
    "rejected",
    "revoked",
    "mismatch",
    "does-not-match",
    "has",
    "have",
    "please",
    "see",
    "string",
    "redacted",
    "hidden",
    "<nil>",
    "waiting",
    "loading",
    "loaded",
    "reading",
    "created",
    "updated",
    "deleted",
    "rotated",
    "syntax",
    "illegal",
    "bad",
    "connection",
    "dial",
    "open",
    "read",
    "context",
    "rpc",
    "permission",
    "object",
    "secrets",
    "secret",
    "configmap",
    "key",
    "no-such-key",
    "timeout",
];

/// The first bytes of a private key in DER, or of an OpenSSH key, in base64.
const KEYS: &[&str] = &["MII", "MIG", "MHc", "MC4CAQ", "b3BlbnNzaC1rZXk"];

/// `user:password@`, or a token alone; a login such as `git@` is none.
pub(super) fn user_info(captures: &Captures<'_>) -> bool {
    let user = captures.name("user").map_or("", |user| user.as_str());
    match captures.name("password") {
        Some(password) => password.as_str().len() > 1,
        None => user.len() >= 16 && has_digit(user),
    }
}

/// A header's value, less words about it.
pub(super) fn authorization(captures: &Captures<'_>) -> bool {
    let secret = captures.name("secret").map_or("", |secret| secret.as_str());
    let mut words = secret.split_whitespace();
    match (words.next(), words.next()) {
        (_, Some(value)) => !is_word(value),
        (Some(value), None) => {
            let scheme = ["bearer", "basic", "digest", "negotiate"]
                .iter()
                .any(|name| value.eq_ignore_ascii_case(name));
            !scheme && has_digit(value)
        }
        _ => false,
    }
}

/// `name=value`, and a value that is worth hiding.
pub(super) fn cookie(captures: &Captures<'_>) -> bool {
    let secret = captures.name("secret").map_or("", |secret| secret.as_str());
    secret
        .split_once('=')
        .is_some_and(|(name, value)| !name.trim().contains(char::is_whitespace) && value.len() >= 8)
}

/// Letters and digits: more than a word after `bearer` or `basic`.
pub(super) fn mixed(captures: &Captures<'_>) -> bool {
    let secret = captures.name("secret").map_or("", |secret| secret.as_str());
    secret.bytes().any(|byte| byte.is_ascii_alphabetic()) && (has_digit(secret) || secret.ends_with('='))
}

/// A key's value, less keys about secrets and values that are none.
pub(super) fn pair(captures: &Captures<'_>) -> bool {
    let key = captures.name("key").map_or("", |key| key.as_str()).trim_start_matches('-');
    let quoted = ["escaped", "double", "single"].into_iter().find_map(|name| captures.name(name));
    let value = quoted.or_else(|| captures.name("bare")).map_or("", |value| value.as_str());
    let snake = snake(key);
    let parts: Vec<&str> = snake.split(['_', '-', '.']).filter(|part| !part.is_empty()).collect();
    let last = parts.last().copied().unwrap_or_default();
    if ABOUT.contains(&last)
        || is_word(value)
        || value.chars().all(|char| matches!(char, '*' | 'x' | 'X' | '.' | '-' | '#'))
    {
        return false;
    }
    let number = value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'%'));
    // max_tokens=4096, secrets: 3.
    if number
        && (last.ends_with("tokens")
            || last.ends_with("secrets")
            || last.ends_with("credentials")
            || last == "token")
    {
        return false;
    }
    // The working directory of a shell.
    if matches!(last, "pwd" | "oldpwd") && value.starts_with('/') {
        return false;
    }
    // A variable or a template that would be the secret.
    // (`${DB_PASSWORD}`: the pattern takes no bracket.)
    if value == "$" || value.starts_with("${") || value.starts_with("$(") || value.starts_with("{{") {
        return false;
    }
    // Prose: `token: expired.`, `secret: open: no such file`.
    let said = captures
        .name("sign")
        .is_some_and(|sign| sign.as_str().trim() == ":" && sign.as_str().ends_with(char::is_whitespace));
    let word = value.trim_end_matches([':', '.', ',', '!']);
    !(said && quoted.is_none() && (is_word(word) || value.ends_with(':')))
}

/// Whether a line alone starts a private key.
pub(super) fn begins_a_key(line: &str) -> bool {
    let line = line.trim_start();
    line.len() >= 60 && KEYS.iter().any(|key| line.starts_with(key))
}

fn is_word(value: &str) -> bool {
    let value = value.trim_matches(['"', '\'', ':', '.', ',', '!']);
    WORDS.iter().any(|word| value.eq_ignore_ascii_case(word))
}

fn has_digit(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

/// `secretKeyName` as `secret_key_name`.
fn snake(key: &str) -> String {
    let mut snake = String::with_capacity(key.len() + 4);
    let mut before = ' ';
    for char in key.chars() {
        if char.is_ascii_uppercase() && before.is_ascii_lowercase() {
            snake.push('_');
        }
        snake.push(char.to_ascii_lowercase());
        before = char;
    }
    snake
}
