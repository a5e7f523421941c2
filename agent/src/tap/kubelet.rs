//! `GET /pods` of this node's kubelet: every pod that it runs, at no cost to the API server.
//!
//! Needs `get` on `nodes/pods` (Kubernetes 1.33, KEP-2862). The kubelet's certificate is verified unless the setting says otherwise.

use std::path::PathBuf;

use http::Uri;
use kube::Client;

use crate::kubernetes::{AccessError, KubernetesAccess, Trust};

use super::answer::{ANSWER_BYTES, AskError, ask, whole};

/// What the agent's role must allow.
const NEEDS: &str = "needs `get` on `nodes/pods`, which kubelets know from Kubernetes 1.33 on (KubeletFineGrainedAuthz); older ones want `nodes/proxy`";

/// Where the kubelet is, and how its certificate is verified.
#[derive(Clone, Debug)]
pub struct Address {
    /// Such as `https://10.0.0.1:10250`.
    pub url: Uri,
    /// A PEM bundle; `None`: the cluster's CA.
    pub ca: Option<PathBuf>,
    /// Verifies nothing.
    pub skip_verify: bool,
}

/// The client of one kubelet.
pub struct Kubelet {
    access: KubernetesAccess,
    address: Address,
    server: String,
    /// `None`: to be made anew, since the CA may have been changed, and so may what is behind the address.
    client: Option<Client>,
}

/// Why the kubelet gave no pods.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// No client can be made.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The kubelet's CA cannot be read.
    #[error("the kubelet's CA {path} cannot be read: {error}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It was asked.
    #[error(transparent)]
    Ask(#[from] AskError),
}

// === impl Kubelet ===

impl Kubelet {
    /// Asks nothing yet.
    pub fn new(access: KubernetesAccess, address: Address) -> Self {
        let server = format!("kubelet {}", address.url.to_string().trim_end_matches('/'));
        if address.skip_verify {
            tracing::warn!(
                kubelet = %address.url,
                "the kubelet's certificate is NOT verified: whoever answers at its address gets this node's token"
            );
        }
        Self { access, address, server, client: None }
    }

    /// The body of `GET /pods`.
    ///
    /// Where one of the two refuses the other, the client may have read a token or a CA that has been rotated since: before that
    /// counts, they are read again, and the kubelet is asked once more.
    ///
    /// # Errors
    /// Why there is none, in words that name the way out.
    pub async fn pods(&mut self) -> Result<Vec<u8>, KubeletError> {
        if let Some(client) = self.client.take() {
            match self.ask(&client).await {
                Err(error) if error.may_be_rotated() => {}
                answer => {
                    self.client = answer.is_ok().then_some(client);
                    return Ok(answer?);
                }
            }
        }
        let client = self.connect().await?;
        let body = self.ask(&client).await?;
        self.client = Some(client);
        Ok(body)
    }

    async fn ask(&self, client: &Client) -> Result<Vec<u8>, AskError> {
        let answer = ask(client, &self.server, "/pods".into(), NEEDS).await?;
        whole(&self.server, answer.into_body(), ANSWER_BYTES).await
    }

    /// Who is asked, for messages.
    pub fn server(&self) -> &str {
        &self.server
    }

    async fn connect(&self) -> Result<Client, KubeletError> {
        let trust = match &self.address.ca {
            _ if self.address.skip_verify => Trust::Anybody,
            None => Trust::Cluster,
            Some(path) => Trust::Bundle(
                tokio::fs::read(path)
                    .await
                    .map_err(|error| KubeletError::Ca { path: path.clone(), error })?,
            ),
        };
        Ok(self.access.client_at(self.address.url.clone(), &trust)?)
    }
}

#[cfg(test)]
mod tests;
