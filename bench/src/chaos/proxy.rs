//! The way from the agents to the aggregator, which can be cut, or go silent.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy on loopback.
#[derive(Debug)]
pub(super) struct Proxy {
    /// Where agents connect to.
    pub(super) address: SocketAddr,
    cuts: watch::Sender<u64>,
    silent: watch::Sender<bool>,
}

// === impl Proxy ===

impl Proxy {
    pub(super) async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (cuts, silent) = (watch::Sender::new(0), watch::Sender::new(false));
        let (cut, silence) = (cuts.clone(), silent.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (mut cut, silence) = (cut.subscribe(), silence.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        () = forward(near, target, silence) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Ok(Self { address, cuts, silent })
    }

    /// Breaks every connection there is.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// While silent, lets nothing through and closes nothing. What was open stays silent.
    pub(super) fn silence(&self, silent: bool) {
        self.silent.send_replace(silent);
    }
}

async fn forward(mut near: TcpStream, target: SocketAddr, mut silence: watch::Receiver<bool>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    tokio::select! {
        // Either end may break it off.
        _ = copy_bidirectional(&mut near, &mut far) => {}
        () = async { drop(silence.wait_for(|silent| *silent).await) } => std::future::pending().await,
    }
}
