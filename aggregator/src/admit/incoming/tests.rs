use futures_util::FutureExt;
use futures_util::stream::Stream;
use http_body_util::StreamBody;
use nodetap_wire::{Batch, Hello, from_agent};
use tokio::sync::mpsc;

use super::*;

type Frames = mpsc::Sender<Bytes>;

const LARGE: usize = 2 * WINDOW as usize;

fn frames() -> (Frames, impl Stream<Item = Result<Frame<Bytes>, StdError>> + Unpin) {
    let (send, mut frames) = mpsc::channel::<Bytes>(8);
    let frames = futures_util::stream::poll_fn(move |context| {
        frames.poll_recv(context).map(|data| Some(Ok(Frame::data(data?))))
    });
    (send, frames)
}

fn framed(frame: from_agent::Frame) -> Bytes {
    let message = FromAgent { frame: Some(frame) }.encode_to_vec();
    let prefix = u32::try_from(message.len()).unwrap().to_be_bytes();
    [0].into_iter().chain(prefix).chain(message).collect()
}

fn hello() -> Bytes {
    framed(from_agent::Frame::Hello(Hello::default()))
}

fn batch(sequence: u64, bytes: usize) -> Bytes {
    framed(from_agent::Frame::Batch(Batch { sequence, payload: vec![7; bytes].into(), ..Batch::default() }))
}

/// After its Hello.
async fn stream(
    places: &Places,
) -> (Frames, Incoming<impl Body<Data = Bytes, Error = StdError> + Unpin + use<>>) {
    let (send, frames) = frames();
    let mut incoming = Incoming::new(StreamBody::new(frames), places, Metrics::default());
    send.try_send(hello()).unwrap();
    assert!(incoming.message().await.unwrap().is_some());
    (send, incoming)
}

fn sequence(message: Option<FromAgent>) -> u64 {
    match message.and_then(|message| message.frame) {
        Some(from_agent::Frame::Batch(batch)) => batch.sequence,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_large_message_waits_for_a_place_and_a_small_one_does_not() {
    let places = Places(Arc::new(Semaphore::new(1)));
    let (first, mut one) = stream(&places).await;
    let (second, mut two) = stream(&places).await;
    first.try_send(batch(1, LARGE).slice(..100)).unwrap();
    assert!(one.message().now_or_never().is_none());

    second.try_send(batch(1, 1_000)).unwrap();
    assert_eq!(sequence(two.message().await.unwrap()), 1);
    let large = batch(2, LARGE);
    second.try_send(large.slice(..100)).unwrap();
    second.try_send(large.slice(100..)).unwrap();
    assert!(two.message().now_or_never().is_none());
    assert_eq!(two.metrics.waiting.get(), 1);
    assert!(!second.is_closed() && two.deframer.is_large());

    first.try_send(batch(1, LARGE).slice(100..)).unwrap();
    assert_eq!(sequence(one.message().await.unwrap()), 1);
    assert!(two.message().now_or_never().is_none(), "what was read is not unpacked yet");
    one.leave();
    assert_eq!(sequence(two.message().await.unwrap()), 2);
    assert_eq!(two.metrics.waiting.get(), 0);

    first.try_send(batch(2, LARGE).slice(..100)).unwrap();
    first.try_send(batch(2, LARGE).slice(100..)).unwrap();
    assert!(one.message().now_or_never().is_none());
    drop(two);
    assert_eq!(sequence(one.message().await.unwrap()), 2, "who is gone leaves its place");
}

#[tokio::test]
async fn hello_passes_whatever_its_size() {
    let places = Places(Arc::new(Semaphore::new(0)));
    let (send, frames) = frames();
    let mut incoming = Incoming::new(StreamBody::new(frames), &places, Metrics::default());
    let hello = framed(from_agent::Frame::Hello(Hello { node: "n".repeat(LARGE), ..Hello::default() }));
    send.try_send(hello.slice(..100)).unwrap();
    send.try_send(hello.slice(100..)).unwrap();
    assert!(incoming.message().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn who_says_half_a_message_and_no_more_is_ended() {
    let (send, mut incoming) = stream(&Places::default()).await;
    let whole = batch(1, LARGE);
    send.try_send(whole.slice(..100)).unwrap();
    let begun = Instant::now();
    let part = async {
        tokio::time::sleep(PART_TIMEOUT / 2).await;
        send.try_send(whole.slice(100..200)).unwrap();
        std::future::pending::<()>().await;
    };
    let status = tokio::select! {
        () = part => unreachable!(),
        read = incoming.message() => read.unwrap_err(),
    };
    assert_eq!(begun.elapsed().as_secs(), (PART_TIMEOUT * 3 / 2).as_secs());
    assert!(status.message().contains("the rest of a message"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_between_two_messages_or_was_not_read_is_not_late() {
    let (send, mut incoming) = stream(&Places::default()).await;
    assert!(incoming.message().now_or_never().is_none());
    tokio::time::advance(PART_TIMEOUT * 3).await;
    assert!(incoming.message().now_or_never().is_none());

    let whole = batch(1, LARGE);
    send.try_send(whole.slice(..100)).unwrap();
    assert!(incoming.message().now_or_never().is_none());
    tokio::time::advance(PART_TIMEOUT * 3).await;
    assert!(incoming.message().now_or_never().is_none());
    send.try_send(whole.slice(100..)).unwrap();
    assert_eq!(sequence(incoming.message().await.unwrap()), 1);
}

#[tokio::test]
async fn a_stream_that_ends_within_a_message_was_cut_off_and_one_that_ends_behind_it_was_not() {
    let (send, mut incoming) = stream(&Places::default()).await;
    send.try_send(batch(1, 10)).unwrap();
    drop(send);
    assert_eq!(sequence(incoming.message().await.unwrap()), 1);
    assert!(incoming.message().await.unwrap().is_none());

    let (send, mut incoming) = stream(&Places::default()).await;
    send.try_send(batch(1, 10).slice(..9)).unwrap();
    drop(send);
    assert!(incoming.message().await.unwrap_err().message().contains("within a message"));
}
