//! Asks an aggregator that runs how its watch plan stands.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::assign::status::Status;

/// For the whole of it.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Most of an answer: a hundred thousand shares.
const MOST: u64 = 64 << 20;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody there, or the connection broke.
    #[error("cannot ask the aggregator at {address}: {error}; name its listen.metrics by --address")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// It took too long.
    #[error("the aggregator at {0} did not answer within {seconds} s", seconds = TIMEOUT.as_secs())]
    Timeout(String),
    /// It answered something else.
    #[error("{address} does not answer as an aggregator does: {said}")]
    Refused {
        /// Where.
        address: String,
        /// The beginning of the answer, or what is wrong with it.
        said: String,
    },
}

/// Asks for the status.
///
/// # Errors
/// Where nobody answers, or not as an aggregator does.
pub async fn status(address: &str) -> Result<Status, AskError> {
    let unreachable = |error| AskError::Unreachable { address: address.to_owned(), error };
    let answer = tokio::time::timeout(TIMEOUT, get(address)).await;
    let answer = answer.map_err(|_| AskError::Timeout(address.to_owned()))?.map_err(unreachable)?;
    let answer = String::from_utf8_lossy(&answer);
    let refused = |said: String| AskError::Refused { address: address.to_owned(), said };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let first = head.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) != Some("200") {
        let body: String = body.trim().chars().take(200).collect();
        return Err(refused(format!("{first} {body}")));
    }
    serde_json::from_str(body).map_err(|error| refused(error.to_string()))
}

/// HTTP/1.0, whose answers end with the connection and come in one piece.
async fn get(address: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /status HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await?;
    Ok(answer)
}
