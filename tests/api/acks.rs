//! Acks: a client that is asked, and whoever waits for its answer.

use crate::support::client::Client;
use crate::support::http::WAIT_MAX;
use crate::support::{Running, block_on, settings};
use crate::{next, with_sockets};
use fanfare::{AckError, Io, Socket};
use std::time::{Duration, Instant};

#[test]
fn a_client_that_is_asked_answers_or_the_caller_learns_why_not() {
    let io = Io::with_settings(settings());
    let (server, sockets) = with_sockets(&io);
    let mut client = Client::connect(server.address());
    let socket = next(&sockets);

    let answer = socket.emit_with_ack::<String>("name?", &1);
    client.ask_back(r#"["name?",1]"#, r#"["Ada","more than asked"]"#);
    assert_eq!(block_on(answer), Ok("Ada".to_owned()));

    let answer = socket.emit_with_ack::<(String, u32)>("pair?", &());
    client.ask_back(r#"["pair?"]"#, r#"["Ada",17]"#);
    assert_eq!(block_on(answer), Ok(("Ada".to_owned(), 17)));

    let wrong = socket.emit_with_ack::<u32>("number?", &());
    client.ask_back(r#"["number?"]"#, r#"["seventeen"]"#);
    assert!(matches!(block_on(wrong), Err(AckError::Decode(_))));

    let reserved = socket.emit_with_ack::<u32>("disconnect", &());
    assert!(matches!(block_on(reserved), Err(AckError::Encode(_))));

    let limited = socket.timeout(WAIT_MAX).emit_with_ack::<u32>("in time?", &());
    client.ask_back(r#"["in time?"]"#, "[1]");
    assert_eq!(block_on(limited), Ok(1));

    let started = Instant::now();
    let late = socket.timeout(Duration::from_millis(50)).emit_with_ack::<u32>("late?", &());
    let late_ack = client.text();
    assert_eq!(block_on(late), Err(AckError::Timeout));
    assert!(started.elapsed() >= Duration::from_millis(50));
    client.send(&late_ack.replace("42", "43").replace(r#"["late?"]"#, "[1]"));
    client.send("43999[1]"); // an answer that nobody waits for, like the one before, is ignored

    let gone = socket.emit_with_ack::<u32>("gone?", &());
    assert!(client.text().ends_with(r#"["gone?"]"#));
    client.send("41");
    assert_eq!(block_on(gone), Err(AckError::Disconnected));
    assert_eq!(block_on(socket.emit_with_ack::<u32>("still gone?", &())), Err(AckError::Disconnected));
}

impl Client {
    /// Expects an event that asks for an answer, and answers it.
    fn ask_back(&mut self, event: &str, answer: &str) {
        let packet = self.text();
        let ack_id = packet.strip_prefix("42").and_then(|rest| rest.strip_suffix(event));
        let ack_id = ack_id.unwrap_or_else(|| panic!("{packet} is not {event}")).to_owned();
        assert!(!ack_id.is_empty(), "{packet} asks for no answer");
        self.send(&format!("43{ack_id}{answer}"));
    }
}

#[test]
fn a_handler_may_ask_its_client_and_wait() {
    let io = Io::with_settings(settings());
    io.of("/").on_event("quiz", async |socket: Socket, question: String| {
        let answer = socket.emit_with_ack::<i64>("question", &question).await;
        answer.map(|number| number * 2).unwrap_or(-1)
    });
    let server = Running::io(&io);
    let mut client = Client::connect(server.address());
    client.send(r#"425["quiz","?"]"#);
    client.ask_back(r#"["question","?"]"#, "[21]");
    client.expect("435[42]");
}
