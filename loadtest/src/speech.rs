//! Speech: how the clients of a run speak, after the options were checked together.
//!
//! | `--protocol` | `--transport` | in words |
//! |---|---|---|
//! | `socketio` | `websocket` | Socket.IO over WebSocket |
//! | `socketio` | `polling` | Socket.IO over polling |
//! | `socketio` | `upgrade` | Socket.IO over polling, then WebSocket |
//! | `ws` | | plain WebSocket |

use crate::error::Error;
use crate::options::{Options, Publish};
use clap::ValueEnum;
use std::fmt;

/// Where a room's name goes in `--subscribe`.
pub const ROOM: &str = "{room}";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    #[value(name = "socketio")]
    SocketIo,
    Ws,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    #[value(name = "websocket")]
    WebSocket,
    Polling,
    Upgrade,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::SocketIo => "socketio",
            Protocol::Ws => "ws",
        }
    }
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Transport::WebSocket => "websocket",
            Transport::Polling => "polling",
            Transport::Upgrade => "upgrade",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Speech {
    pub protocol: Protocol,
    /// How Socket.IO is carried; plain WebSocket has only itself.
    pub transport: Transport,
    pub namespace: String,
    /// What the CONNECT packet carries: a JSON object, or nothing.
    pub auth: String,
    /// Lines that go into every request, each with its end.
    pub headers: String,
    /// What a plain WebSocket client sends; [`ROOM`] in it is the room's name.
    pub subscribe: Option<String>,
    pub publish: Publish,
}

impl Speech {
    pub fn new(options: &Options) -> Result<Speech, Error> {
        let (protocol, transport) = (options.protocol, options.transport);
        let publish = options.publish.clone().unwrap_or(match protocol {
            Protocol::SocketIo => Publish::Http,
            Protocol::Ws => Publish::Message,
        });
        let problem = match protocol {
            Protocol::SocketIo => socketio_problem(options, &publish),
            Protocol::Ws => ws_problem(options, &publish),
        };
        if let Some((option, problem)) = problem {
            return Err(Error::Option { option, problem: problem.to_owned() });
        }
        Ok(Speech {
            protocol,
            transport,
            namespace: options.namespace.clone(),
            auth: options.auth.clone().unwrap_or_default(),
            headers: options.headers.iter().map(|line| format!("{line}\r\n")).collect(),
            subscribe: options.subscribe.clone(),
            publish,
        })
    }

    /// How the publisher's client speaks: over WebSocket, because a schedule cannot wait for the answer of a poll; and
    /// without a subscription, because it only publishes.
    pub fn of_publisher(&self) -> Speech {
        Speech { transport: Transport::WebSocket, subscribe: None, ..self.clone() }
    }

    /// How many streams a client opens, one after the other.
    pub fn streams_each(&self) -> u32 {
        if self.transport == Transport::Upgrade { 2 } else { 1 }
    }

    /// The way of publishing, in words.
    pub fn way(&self) -> String {
        match &self.publish {
            Publish::Http => "POST /api/publish".to_owned(),
            Publish::Event(name) => format!("the event '{name}'"),
            Publish::Message => "a message".to_owned(),
        }
    }

    /// What the server must do with what is published, in words that begin with a verb.
    pub fn duty(&self) -> String {
        match (self.protocol, &self.publish) {
            (Protocol::SocketIo, _) => format!("answer {} with an event 'msg' to all of them", self.way()),
            (Protocol::Ws, Publish::Message) => "relay a message to all of them".to_owned(),
            (Protocol::Ws, _) => format!("answer {} with a message to all of them", self.way()),
        }
    }
}

impl fmt::Display for Speech {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match (self.protocol, self.transport) {
            (Protocol::Ws, _) => "plain WebSocket",
            (Protocol::SocketIo, Transport::WebSocket) => "Socket.IO over WebSocket",
            (Protocol::SocketIo, Transport::Polling) => "Socket.IO over polling",
            (Protocol::SocketIo, Transport::Upgrade) => "Socket.IO over polling, then WebSocket",
        })
    }
}

/// An option, and what is wrong with it.
type Problem = Option<(&'static str, &'static str)>;

fn socketio_problem(options: &Options, publish: &Publish) -> Problem {
    if options.subscribe.is_some() {
        return Some(("--subscribe", "a Socket.IO client joins a room; name it with --room"));
    }
    if *publish == Publish::Message {
        return Some(("--publish", "message is for --protocol ws; a Socket.IO client publishes with event:NAME"));
    }
    None
}

fn ws_problem(options: &Options, publish: &Publish) -> Problem {
    if options.transport != Transport::WebSocket {
        return Some(("--transport", "plain WebSocket has only itself; leave it out, or use --protocol socketio"));
    }
    if matches!(publish, Publish::Event(_)) {
        return Some(("--publish", "plain WebSocket has no events; use message or http"));
    }
    if options.auth.is_some() {
        return Some(("--auth", "plain WebSocket has no CONNECT packet; use --header or --subscribe"));
    }
    if options.namespace != "/" {
        return Some(("--namespace", "plain WebSocket has no namespaces; put it into the URL's path"));
    }
    match (&options.room, &options.subscribe) {
        (Some(_), text) if !text.as_ref().is_some_and(|text| text.contains(ROOM)) => {
            Some(("--room", "plain WebSocket has no rooms; say how to ask for one with --subscribe 'TEXT {room}'"))
        }
        (None, Some(text)) if text.contains(ROOM) => Some(("--subscribe", "{room} is in it; name it with --room")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn speech(flags: &[&str]) -> Result<Speech, String> {
        let options = Options::try_parse_from(["loadtest", "http://h"].iter().chain(flags)).expect("all are flags");
        Speech::new(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn each_protocol_has_its_way_to_publish() {
        let duty = |flags: &[&str]| speech(flags).map(|speech| speech.duty());
        let table: [(&[&str], &str); 4] = [
            (&[], "answer POST /api/publish with an event 'msg' to all of them"),
            (&["--publish", "event:pub"], "answer the event 'pub' with an event 'msg' to all of them"),
            (&["--protocol", "ws"], "relay a message to all of them"),
            (&["--protocol", "ws", "--publish", "http"], "answer POST /api/publish with a message to all of them"),
        ];
        table.iter().for_each(|(flags, text)| assert_eq!(duty(flags).as_deref(), Ok(*text)));
    }

    #[test]
    fn headers_are_lines_for_every_request() {
        let speech = speech(&["--header", "A: 1", "--header", "b:2"]).expect("both are headers");
        assert_eq!(speech.headers, "A: 1\r\nb: 2\r\n");
        assert_eq!(speech.of_publisher().headers, speech.headers);
    }

    #[test]
    fn the_publisher_speaks_over_websocket_and_does_not_subscribe() {
        let polling = speech(&["--transport", "polling", "--publish", "event:pub"]).expect("they fit together");
        assert_eq!(polling.of_publisher().to_string(), "Socket.IO over WebSocket");
        let ws = speech(&["--protocol", "ws", "--subscribe", "hello"]).expect("they fit together");
        assert_eq!((ws.subscribe.as_deref(), ws.of_publisher().subscribe), (Some("hello"), None));
    }

    #[test]
    fn what_does_not_fit_together_is_one_line() {
        let table: [(&str, &str); 8] = [
            ("--subscribe hello", "--subscribe: a Socket.IO client joins a room; name it with --room"),
            (
                "--publish message",
                "--publish: message is for --protocol ws; a Socket.IO client publishes with event:NAME",
            ),
            (
                "--protocol ws --transport polling",
                "--transport: plain WebSocket has only itself; leave it out, or use --protocol socketio",
            ),
            ("--protocol ws --publish event:pub", "--publish: plain WebSocket has no events; use message or http"),
            ("--protocol ws --auth {}", "--auth: plain WebSocket has no CONNECT packet; use --header or --subscribe"),
            (
                "--protocol ws --namespace /x",
                "--namespace: plain WebSocket has no namespaces; put it into the URL's path",
            ),
            (
                "--protocol ws --room a --subscribe hello",
                "--room: plain WebSocket has no rooms; say how to ask for one with --subscribe 'TEXT {room}'",
            ),
            ("--protocol ws --subscribe join:{room}", "--subscribe: {room} is in it; name it with --room"),
        ];
        for (flags, line) in table {
            let problem = speech(&flags.split(' ').collect::<Vec<_>>()).map(|_| ());
            assert_eq!(problem, Err(line.to_owned()), "{flags}");
        }
    }
}
