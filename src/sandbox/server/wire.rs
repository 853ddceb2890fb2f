//! Connections that can be broken from inside a request, or made to carry what is no HTTP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use axum::serve::Listener;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::sandbox::faults::Fault;

/// Accepts connections that can be broken from inside a request.
pub(super) struct Listen(pub(super) TcpListener);

impl Listener for Listen {
    type Io = WireIo;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Without it, a small answer may wait for an acknowledgement. A failure only costs time.
        let _ = stream.set_nodelay(true);
        (WireIo { stream, wire: Wire::default(), saying: None }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// The handle by which a request breaks its connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Wire {
    broken: Arc<AtomicBool>,
    /// Whether it ends with a reset, not a plain close.
    reset: Arc<AtomicBool>,
    /// What is sent instead of the answer.
    raw: Arc<Mutex<Option<Raw>>>,
}

impl Wire {
    /// Breaks the connection: nothing more is sent.
    pub(super) fn cut(&self, reset: bool) {
        self.reset.store(reset, Ordering::Relaxed);
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Sends `raw` instead of the answer, and then closes the connection.
    pub(super) fn say(&self, raw: Raw) {
        *self.raw.lock().unwrap_or_else(PoisonError::into_inner) = Some(raw);
    }
}

impl Connected<IncomingStream<'_, Listen>> for Wire {
    fn connect_info(stream: IncomingStream<'_, Listen>) -> Self {
        stream.io().wire.clone()
    }
}

/// Bytes as they go over the wire.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    bytes: Vec<u8>,
    /// From where on they are sent again and again; `None` where they have an end.
    again_from: Option<usize>,
}

impl Raw {
    /// Returns what is sent in a fault that no server of HTTP would let happen, where it is one.
    pub(super) fn of(fault: &Fault, body: &[u8]) -> Option<Self> {
        let head =
            |more: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{more}");
        let (text, body, is_endless) = match fault {
            Fault::ShortLength => {
                let length = body.len() / 2;
                (head(&format!("Content-Length: {length}\r\n\r\n")), body.to_vec(), false)
            }
            Fault::LongHeader { bytes } => {
                let (long, length) = ("x".repeat(*bytes), body.len());
                let more = format!("X-Long: {long}\r\nContent-Length: {length}\r\n\r\n");
                (head(&more), body.to_vec(), false)
            }
            Fault::Interim { status } => {
                (format!("HTTP/1.1 {status} Wait\r\n\r\n"), Vec::new(), false)
            }
            Fault::EndlessHeaders => (head(""), b"X-More: and more\r\n".repeat(1_000), true),
            Fault::EndlessBody => (head("Connection: close\r\n\r\n"), vec![b' '; 1 << 16], true),
            _ => return None,
        };
        let again_from = is_endless.then_some(text.len());
        Some(Self { bytes: [text.into_bytes(), body].concat(), again_from })
    }
}

/// A connection that ends instead of sending once its wire is broken.
pub(super) struct WireIo {
    stream: TcpStream,
    wire: Wire,
    /// What is being sent instead of the answer, and how far that is.
    saying: Option<(Raw, usize)>,
}

impl WireIo {
    fn check(&self) -> io::Result<()> {
        if !self.wire.broken.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.wire.reset.load(Ordering::Relaxed) {
            // Closing now discards what is unsent and resets. A failure leaves a plain close.
            let _ = self.stream.set_zero_linger();
        }
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    }

    /// Sends what there is to send instead of the answer; ready at once where there is nothing, and
    /// else with an error, which ends the connection.
    fn poll_say(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.saying.is_none() {
            let raw = self.wire.raw.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.saying = raw.map(|raw| (raw, 0));
        }
        let Some((raw, sent)) = &mut self.saying else { return Poll::Ready(Ok(())) };
        loop {
            if *sent == raw.bytes.len() {
                match raw.again_from {
                    Some(start) => *sent = start,
                    None => return Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe))),
                }
            }
            *sent += ready!(Pin::new(&mut self.stream).poll_write(context, &raw.bytes[*sent..]))?;
        }
    }
}

impl AsyncRead for WireIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for WireIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        ready!(self.poll_say(context))?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        ready!(self.poll_say(context))?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
