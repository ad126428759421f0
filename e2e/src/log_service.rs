//! A service that takes access logs, and shows what it has taken.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use chancery_proto::envoy::{
    access_log_data::HttpAccessLogEntry,
    access_log_service::{
        StreamAccessLogsMessage, StreamAccessLogsResponse,
        access_log_service_server::{AccessLogService, AccessLogServiceServer},
        stream_access_logs_message::LogEntries,
    },
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// A service on a port of its own, in plaintext. Dropping it closes every connection.
#[derive(Debug)]
pub struct LogService {
    /// Where it listens.
    pub address: SocketAddr,
    taken: Taken,
    _server: JoinSet<()>,
}

/// Entries, each with the name of its log.
#[derive(Clone, Debug, Default)]
struct Taken(Arc<Mutex<Vec<(String, HttpAccessLogEntry)>>>);

impl LogService {
    /// Starts one on a free port of the loopback interface.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let taken = Taken::default();
        let service = AccessLogServiceServer::new(taken.clone());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let serving = Server::builder().add_service(service);
            // The test sees that nothing arrives.
            let _ = serving.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Ok(Self { address, taken, _server: server })
    }

    /// What it has taken, in the order of arrival, each with the name of its log.
    pub fn entries(&self) -> Vec<(String, HttpAccessLogEntry)> {
        self.taken.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[tonic::async_trait]
impl AccessLogService for Taken {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut messages = request.into_inner();
        let mut name = String::new();
        while let Some(message) = messages.message().await? {
            if let Some(identifier) = message.identifier {
                name = identifier.log_name;
            }
            if let Some(LogEntries::HttpLogs(logs)) = message.log_entries {
                let entries = logs.log_entry.into_iter().map(|entry| (name.clone(), entry));
                self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(entries);
            }
        }
        Ok(Response::new(StreamAccessLogsResponse::default()))
    }
}
