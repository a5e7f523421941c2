#![allow(clippy::unwrap_used)]

use super::*;

#[tokio::test(start_paused = true)]
async fn too_many_open_files_are_counted_and_told_until_a_connection_is_accepted_or_none_waits() {
    let metrics = Metrics::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    failed(&metrics, &io::ErrorKind::ConnectionAborted.into());
    assert_eq!((metrics.accept_failures.get(), metrics.accept_failing.get()), (1, 0), "of that one alone");
    // EMFILE
    failed(&metrics, &io::Error::from_raw_os_error(24));
    assert_eq!((metrics.accept_failures.get(), metrics.accept_failing.get()), (2, 1));
    assert!(next(&listener, &metrics).await.is_none());
    assert_eq!(metrics.accept_failing.get(), 0, "nobody waits");
    failed(&metrics, &io::Error::from_raw_os_error(24));
    let (_agent, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), next(&listener, &metrics));
    // The clock runs on where nothing else does, so that it may have been too early.
    let accepted = if accepted.is_some() { accepted } else { next(&listener, &metrics).await };
    assert!(accepted.is_some());
    assert_eq!((metrics.accept_failures.get(), metrics.accept_failing.get()), (3, 0));
}
