//! A way between the two that can be cut, or go silent.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    pub address: SocketAddr,
    cuts: watch::Sender<u64>,
    silent: watch::Sender<bool>,
    target: watch::Sender<SocketAddr>,
}

impl Proxy {
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = watch::Sender::new(0);
        let cut = cuts.clone();
        let target = watch::Sender::new(target);
        let to = target.clone();
        let silent = watch::Sender::new(false);
        let silence = silent.clone();
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (mut cut, mut silence) = (cut.subscribe(), silence.subscribe());
                let target = *to.borrow();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    let forward = async {
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                            () = async { drop(silence.wait_for(|silent| *silent).await) } => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = forward => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, cuts, silent, target }
    }

    /// Leads new connections to another address.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Cuts every connection there is.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets nothing through any more, and closes nothing: as when a node loses its power.
    pub fn fall_silent(&self) {
        self.silent.send_replace(true);
    }
}
