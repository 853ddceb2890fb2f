//! Certificates that nobody vouches for: nothing is said to whoever shows one, and no credentials.
//!
//! Those of `tests/fixtures/tls` are signed by themselves, one for 127.0.0.1 and one for another host, and
//! are of no use anywhere.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use leadpipe::clock::SharedClock;
use leadpipe::clock::SystemClock;
use leadpipe::error::Hint;
use leadpipe::extract::Call;
use leadpipe::extract::Error;
use leadpipe::extract::Heard;
use leadpipe::extract::HttpClient;
use leadpipe::extract::HttpSettings;
use leadpipe::ids::ProviderId;
use reqwest::header::AUTHORIZATION;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const RIGHT_HOST: [&str; 2] = [
    include_str!("../../fixtures/tls/right-host.pem"),
    include_str!("../../fixtures/tls/right-host.key.pem"),
];
const WRONG_HOST: [&str; 2] = [
    include_str!("../../fixtures/tls/wrong-host.pem"),
    include_str!("../../fixtures/tls/wrong-host.key.pem"),
];

/// Returns what a PEM file holds.
fn der(pem: &str) -> Vec<u8> {
    let lines: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    base64::engine::general_purpose::STANDARD.decode(lines).unwrap()
}

/// Serves with a certificate; counts the bytes that clients say once they are content with it.
async fn serve([certificate, key]: [&str; 2]) -> (u16, Arc<AtomicUsize>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = CertificateDer::from(der(certificate));
    let key = PrivateKeyDer::try_from(der(key)).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut said = Vec::new();
            // A client that goes away is what is hoped for.
            let _ = stream.read_to_end(&mut said).await;
            counted.fetch_add(said.len(), Ordering::Relaxed);
        }
    });
    (port, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_ends_it_before_anything_is_said() {
    let mut told = Vec::new();
    for certificate in [RIGHT_HOST, WRONG_HOST] {
        let (port, heard) = serve(certificate).await;
        let settings = HttpSettings {
            base_url: format!("https://127.0.0.1:{port}").parse().unwrap(),
            timeout: Duration::from_secs(20),
            stall: Duration::from_secs(10),
            max_body_bytes: 1_000_000,
            heard: Heard::default(),
        };
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("secret"))]);
        let clock: SharedClock = Arc::new(SystemClock::default());
        let provider = ProviderId::Whautomate;
        let client = HttpClient::new(provider, settings, headers, clock).unwrap();
        let error = client.send(Call::get("v1/contacts")).await.unwrap_err();
        assert!(matches!(error, Error::Certificate { .. }), "{error:?}");
        assert!(!error.is_retryable() && !error.may_be_size());
        assert_eq!(heard.load(Ordering::Relaxed), 0);
        told.push(format!("{error}\nhint: {}", error.hint().unwrap()));
    }
    insta::assert_snapshot!(told.join("\n\n"));
}
