use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::json;

use pingora::tls::install_default_crypto_provider;

use super::*;

const SHORT: Duration = Duration::from_millis(200);

/// A listener that answers each request with the next of these, and the last for ever; what it got comes out of the
/// channel.
fn listener(answers: &[&'static str]) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = answers.to_vec();
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let answer = answers[number.min(answers.len() - 1)];
            let _ = sender.send(read_request(&mut stream));
            if answer == SILENCE {
                std::thread::spawn(move || (std::thread::sleep(Duration::from_secs(60)), drop(stream)));
                continue;
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (port, received)
}

const SILENCE: &str = "";
const OK: &str = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
const BROKEN: &str = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";
const REFUSED: &str = "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n";

/// Reads a request to the end that its length tells.
fn read_request(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    loop {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return String::from_utf8(text).unwrap();
        }
        text.push(byte[0]);
        let so_far = String::from_utf8_lossy(&text).to_lowercase();
        let Some((head, body)) = so_far.split_once("\r\n\r\n") else { continue };
        let length = head.split_once("content-length: ").map_or("0", |(_, rest)| rest);
        let length = length.split("\r\n").next().unwrap_or("0").parse::<usize>().unwrap();
        if body.len() >= length {
            return String::from_utf8(text).unwrap();
        }
    }
}

fn send(port: u16) -> Result<(), String> {
    let webhook = OutboundUrl::parse(&format!("http://127.0.0.1:{port}/hook/T0KEN?key=s3cret")).unwrap();
    deliver(&webhook, &json!({ "text": "über" }), &[], SHORT)
}

#[test]
fn a_document_is_posted_as_it_is() {
    let (port, received) = listener(&[OK]);
    send(port).unwrap();
    let request = received.recv().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook/T0KEN?key=s3cret HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
    assert_eq!(body, "{\"text\":\"über\"}");
}

#[test]
fn what_may_pass_is_tried_once_more_and_no_more() {
    let (port, received) = listener(&[BROKEN, OK]);
    send(port).unwrap();
    assert_eq!(received.try_iter().count(), 2);
    let (port, received) = listener(&[BROKEN]);
    assert_eq!(send(port).unwrap_err(), "it was answered with 500");
    assert_eq!(received.try_iter().count(), 2);
    let (port, received) = listener(&[REFUSED]);
    assert_eq!(send(port).unwrap_err(), "it was answered with 410");
    assert_eq!(received.try_iter().count(), 1, "a refusal is an answer");
}

#[test]
fn a_redirect_is_not_followed() {
    let (other, seen) = listener(&[OK]);
    let target =
        format!("HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:{other}/\r\nContent-Length: 0\r\n\r\n");
    let (port, received) = listener(&[target.leak()]);
    assert_eq!(send(port).unwrap_err(), "it was answered with 307");
    assert_eq!((received.try_iter().count(), seen.try_iter().count()), (1, 0));
}

#[test]
fn nobody_is_waited_for_longer_than_allowed() {
    let (port, received) = listener(&[SILENCE]);
    let since = Instant::now();
    assert_eq!(send(port).unwrap_err(), "it took too long");
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_eq!(received.try_iter().count(), 2);
}

#[test]
fn no_reason_names_the_address() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (strange, _received) = listener(&["SSH-2.0-OpenSSH_9.6\r\n\r\n"]);
    for port in [free, strange] {
        let reason = send(port).unwrap_err();
        assert!(!reason.contains("T0KEN") && !reason.contains("s3cret"), "{reason}");
    }
}

#[test]
fn no_variable_of_the_environment_names_a_proxy() {
    assert!(agent(&[], SHORT).config().proxy().is_none());
}

#[test]
fn a_certificate_is_verified_with_the_authorities_that_are_given() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = Certificate::from_der(key.cert.der()).to_owned();
    let (port, received) = tls_listener(&key);
    let webhook = OutboundUrl::parse(&format!("https://localhost:{port}/")).unwrap();
    let document = json!({ "text": "told" });
    let patience = Duration::from_secs(10);
    deliver(&webhook, &document, &[certificate], patience).unwrap();
    assert!(received.recv().unwrap().ends_with("{\"text\":\"told\"}"));
    let reason = deliver(&webhook, &document, &machine_certificates().unwrap(), patience).unwrap_err();
    assert!(reason.contains("certificate"), "{reason}");
    assert_eq!(received.recv().unwrap(), "", "nothing is said to a stranger");
    assert!(received.recv_timeout(SHORT).is_err(), "he stays one");
}

fn tls_listener(key: &rcgen::CertifiedKey<rcgen::KeyPair>) -> (u16, Receiver<String>) {
    install_default_crypto_provider();
    let secret = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![key.cert.der().clone()], secret).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream: rustls::StreamOwned<_, TcpStream> =
                rustls::StreamOwned::new(connection, stream.unwrap());
            let _ = sender.send(read_request(&mut stream));
            let _ = stream.write_all(OK.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (port, received)
}
