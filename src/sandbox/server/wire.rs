//! Connections that can be broken from inside a request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use axum::serve::Listener;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

/// Accepts connections that can be broken from inside a request.
pub(super) struct Listen(pub(super) TcpListener);

impl Listener for Listen {
    type Io = WireIo;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Without it, a small answer may wait for an acknowledgement. A failure only costs time.
        let _ = stream.set_nodelay(true);
        (WireIo { stream, wire: Wire::default() }, address)
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
}

impl Wire {
    /// Breaks the connection: nothing more is sent.
    pub(super) fn cut(&self, reset: bool) {
        self.reset.store(reset, Ordering::Relaxed);
        self.broken.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Listen>> for Wire {
    fn connect_info(stream: IncomingStream<'_, Listen>) -> Self {
        stream.io().wire.clone()
    }
}

/// A connection that ends instead of sending once its wire is broken.
pub(super) struct WireIo {
    stream: TcpStream,
    wire: Wire,
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
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
