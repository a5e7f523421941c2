//! What stands before several API servers: connections go to the first that takes them, as a load balancer's do whose others are
//! spare.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) port: u16,
    task: JoinHandle<()>,
}

// === impl Proxy ===

impl Proxy {
    /// # Errors
    /// It cannot listen.
    pub(super) async fn start(address: &str, servers: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let servers = servers.clone();
                tokio::spawn(async move {
                    for server in servers {
                        if let Ok(mut server) = TcpStream::connect(server).await {
                            // However it ends, both sides are closed.
                            let _ = copy_bidirectional(&mut client, &mut server).await;
                            return;
                        }
                    }
                });
            }
        });
        Ok(Self { port, task })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
