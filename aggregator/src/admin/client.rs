//! The command line's side of the socket.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{Shown, Which, path};

/// Why nothing came of an order.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is nobody to ask.
    #[error("{0}: {1}; is the aggregator running, with this configuration, and is this its container?")]
    Connect(String, #[source] std::io::Error),
    /// The connection broke.
    #[error("the aggregator did not answer: {0}")]
    Broken(#[from] hyper::Error),
    /// It answered something else.
    #[error("the aggregator's answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
    /// It would not.
    #[error("{0}")]
    Refused(String),
    /// What was found cannot be written.
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
}

/// Writes the dead letters that are meant, one a line: receiver, position, time and reason, or JSON.
///
/// # Errors
/// Where the aggregator cannot be asked, or `out` not be written.
pub async fn list(
    folder: &Path,
    mut which: Which,
    json: bool,
    out: &mut impl Write,
) -> Result<(), ClientError> {
    loop {
        let letters: Vec<Shown> = serde_json::from_slice(&ask(folder, "list", &which).await?)?;
        let Some(last) = letters.last() else { return Ok(out.flush()?) };
        which.after = Some((last.sink.clone(), last.position));
        for letter in &letters {
            match json {
                true => writeln!(out, "{}", serde_json::to_string(letter)?)?,
                // What a sink answered may have any number of lines.
                false => writeln!(
                    out,
                    "{}  {}  {}  {}",
                    letter.sink,
                    letter.position,
                    letter.at,
                    letter.reason.escape_debug()
                )?,
            }
        }
    }
}

/// Has the aggregator do something with the dead letters that are meant; what it says to it.
///
/// # Errors
/// Where it cannot be asked, or would not.
pub async fn order(folder: &Path, action: &str, which: &Which) -> Result<String, ClientError> {
    Ok(String::from_utf8_lossy(&ask(folder, action, which).await?).trim().to_owned())
}

async fn ask(folder: &Path, action: &str, which: &Which) -> Result<Bytes, ClientError> {
    let socket = path(folder);
    let stream = UnixStream::connect(&socket).await;
    let stream = stream.map_err(|error| ClientError::Connect(socket.display().to_string(), error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let body = Full::<Bytes>::from(serde_json::to_vec(which)?);
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = format!("/dead-letters/{action}")
        .parse()
        .map_err(|_| ClientError::Refused(format!("no such order: {action}")))?;
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("nodetap"));
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    match status.is_success() {
        true => Ok(body),
        false => Err(ClientError::Refused(String::from_utf8_lossy(&body).trim().to_owned())),
    }
}
