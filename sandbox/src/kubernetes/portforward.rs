//! Port-forwards over WebSocket in the subprotocol `v4.channel.k8s.io`: per port one data and one error channel, both opened by a
//! frame that carries the port. It moves bytes and knows nothing of what listens behind a port.

use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use bytes::{BufMut as _, BytesMut};
use futures::SinkExt as _;
use futures::stream::{SplitSink, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::model::PortForward;
use super::server::{KubeBackend, PodStream};

type Writer = WriteHalf<Box<dyn PodStream>>;

fn frame(channel: u8, payload: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(payload.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(payload);
    Message::Binary(bytes.freeze())
}

/// Moves bytes between the channels of a WebSocket and the ports of a pod until either side ends.
pub(crate) async fn run(socket: WebSocket, forward: PortForward, backend: Arc<dyn KubeBackend>) {
    let (sink, mut incoming) = socket.split();
    let (frames, outgoing) = mpsc::channel::<Message>(64);
    let pump = tokio::spawn(send_all(sink, outgoing));
    let mut writers: Vec<Option<Writer>> = Vec::new();
    let mut readers = Vec::new();
    for (index, port) in forward.ports.iter().enumerate() {
        let Ok(data) = u8::try_from(index * 2) else { break };
        for channel in [data, data + 1] {
            if frames.send(frame(channel, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
        match backend.connect_pod(&forward.cluster, &forward.namespace, &forward.pod, *port) {
            Some(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                readers.push(tokio::spawn(read_all(reader, data, frames.clone())));
                writers.push(Some(writer));
            }
            None => {
                let text = format!("error forwarding port {port} to pod {}: connection refused", forward.pod);
                if frames.send(frame(data + 1, text.as_bytes())).await.is_err() {
                    return;
                }
                writers.push(None);
            }
        }
    }
    while let Some(Ok(message)) = incoming.next().await {
        match message {
            Message::Binary(bytes) => {
                let Some((channel, payload)) = bytes.split_first() else { continue };
                let Some(Some(writer)) = writers.get_mut(usize::from(*channel / 2)).filter(|_| channel % 2 == 0) else {
                    continue;
                };
                if writer.write_all(payload).await.is_err() || writer.flush().await.is_err() {
                    break;
                }
            }
            Message::Close(_) => break,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
        }
    }
    for reader in readers {
        reader.abort();
    }
    drop(frames);
    pump.abort();
}

async fn send_all(mut sink: SplitSink<WebSocket, Message>, mut outgoing: mpsc::Receiver<Message>) {
    while let Some(message) = outgoing.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    sink.close().await.unwrap_or_default();
}

async fn read_all(mut reader: ReadHalf<Box<dyn PodStream>>, channel: u8, frames: mpsc::Sender<Message>) {
    let mut buffer = vec![0_u8; 16 * 1_024];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                let payload = buffer.get(..length).unwrap_or_default();
                if frames.send(frame(channel, payload)).await.is_err() {
                    return;
                }
            }
        }
    }
    // The protocol has no half-close: an empty frame would be data, so the whole stream ends.
    if frames.send(Message::Close(None)).await.is_err() {
        tracing::debug!("the client left before the pod's end of stream");
    }
}
