//! Conformance: the servers that clients and protocol suites are tested against.
//!
//!     cargo run --example conformance -- kit --port 3000
//!
//! | profile | what it is |
//! |---|---|
//! | `kit` | handlers for everything that a client can do, with short timeouts |
//! | `protocol` | what the official Socket.IO protocol suite expects, at `/socket.io/` |
//! | `engine-protocol` | what the official Engine.IO protocol suite expects, at `/engine.io/`, on the engine layer alone |
//! | `engine` | an echo on the engine layer alone, at `/engine.io/`, with long heartbeats |

use clap::{Parser, ValueEnum};
use fanfare::engine::Engine;
use fanfare::{
    Ack, Args, Binary, CloseReason, ConnectError, Cors, Io, Namespace, Origins, Settings, Socket, StartError,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Parser)]
struct Arguments {
    #[arg(value_enum, default_value = "kit")]
    profile: Profile,
    /// Port on 127.0.0.1.
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Worker threads; 0 is one per core, but here at least two, so that requests meet foreign workers.
    #[arg(long, default_value_t = 0)]
    workers: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Profile {
    Kit,
    Protocol,
    Engine,
    EngineProtocol,
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), StartError> {
    let arguments = Arguments::parse();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let workers = if arguments.workers == 0 { cores.max(2) } else { arguments.workers };
    let address = ("127.0.0.1", arguments.port);
    let (name, server) = match arguments.profile {
        Profile::Kit => ("kit", kit(workers).listen(address)?),
        Profile::Protocol => ("protocol", protocol(workers).listen(address)?),
        Profile::Engine => ("engine", engine(workers).listen(address)?),
        Profile::EngineProtocol => ("engine-protocol", engine_protocol(workers).listen(address)?),
    };
    println!("ready {name} http://{} pid {}", server.address(), std::process::id());
    server.wait();
    Ok(())
}

fn any_origin() -> Option<Cors> {
    Some(Cors { origins: Origins::Any, credentials: false, methods: vec!["GET".into(), "POST".into()] })
}

fn protocol(workers: usize) -> Io {
    let io = Io::with_settings(Settings {
        workers,
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        ping_spread: false,
        connect_timeout: Duration::from_secs(1),
        cors: any_origin(),
        ..Settings::default()
    });
    let greet = |socket: Socket| drop(socket.emit("auth", &auth_of(&socket)));
    io.on_connection(greet);
    io.of("/custom").on_connection(greet);
    io.of("/")
        .on_event("message", |socket: Socket, all: Args| drop(socket.emit("message-back", &all)))
        .on_event("message-with-ack", |_: Socket, all: Args| all);
    io
}

fn engine_protocol(workers: usize) -> Engine {
    let settings = Settings {
        workers,
        path: "/engine.io".into(),
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        ping_spread: false,
        cors: any_origin(),
        ..Settings::default()
    };
    Engine::with_settings(settings).on_message(|conn, message| conn.send(message))
}

fn engine(workers: usize) -> Engine {
    let settings = Settings {
        workers,
        path: "/engine.io".into(),
        ping_interval: Duration::from_secs(3600),
        ping_timeout: Duration::from_secs(3600),
        payload_bytes_max: 64 << 20,
        outbox_bytes_max: 256 << 20,
        ..Settings::default()
    };
    Engine::with_settings(settings).on_message(|conn, message| conn.send(message))
}

fn kit(workers: usize) -> Io {
    let io = Io::with_settings(Settings {
        workers,
        ping_interval: Duration::from_secs(1),
        ping_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        upgrade_timeout: Duration::from_secs(2),
        handshake_timeout: Duration::from_secs(3),
        request_timeout: Duration::from_secs(5),
        outbox_bytes_max: 64 << 20,
        cors: Some(Cors {
            origins: Origins::Listed(vec!["http://good.example".into()]),
            credentials: true,
            methods: vec!["GET".into(), "POST".into()],
        }),
        ..Settings::default()
    });
    let reasons = Reasons::default();
    for name in ["/", "/custom", "/auth"] {
        kit_handlers(io.of(name), &reasons);
    }
    io.of("/auth")
        .middleware(async |socket: Socket| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            #[derive(Deserialize)]
            struct Auth {
                token: String,
            }
            let authorized = socket.handshake().auth::<Auth>().is_ok_and(|auth| auth.token == "secret");
            let refusal = || ConnectError::new("not authorized").with_data(json!({ "code": "E_AUTH", "retry": false }));
            authorized.then_some(()).ok_or_else(refusal)
        })
        .on_connection(|socket: Socket| {
            drop(socket.emit("welcome", &auth_of(&socket)));
        });
    io
}

/// What the client gave as `auth`, its keys in its order.
fn auth_of(socket: &Socket) -> Box<RawValue> {
    socket.handshake().auth().expect("the protocol allows only JSON objects")
}

/// How sockets ended, by id.
type Reasons = Arc<Mutex<HashMap<String, CloseReason>>>;

/// Which sockets an event of the kit goes to.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct To {
    rooms: Vec<String>,
    except: Vec<String>,
}

fn kit_handlers(namespace: Namespace, reasons: &Reasons) {
    let everyone = namespace.clone();
    let (ended, asked) = (Arc::clone(reasons), Arc::clone(reasons));
    namespace
        .on_disconnect(move |socket: Socket, reason| {
            ended.lock().unwrap().insert(socket.id().to_owned(), reason);
        })
        .on_event("reason-of", move |_: Socket, id: String| {
            let reasons = Arc::clone(&asked);
            async move {
                for _ in 0..60 {
                    if let Some(reason) = reasons.lock().unwrap().get(&id) {
                        return Some(reason.as_str());
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                None
            }
        })
        .on_event("echo", |socket: Socket, all: Args, ack: Ack| {
            if ack.is_wanted() {
                drop(ack.send(&all));
            } else {
                drop(socket.emit("echo", &all));
            }
        })
        .on_event("types", |_: Socket, all: Args| types(&all))
        .on_event("join", |socket: Socket, room: String| {
            _ = socket.join(room);
            other_rooms(&socket)
        })
        .on_event("leave", |socket: Socket, room: String| {
            socket.leave(room);
            other_rooms(&socket)
        })
        .on_event("to", |socket: Socket, (to, event, rest): (To, String, Args)| {
            drop(socket.broadcast().to(to.rooms).except(to.except).emit(&event, &rest));
            "sent"
        })
        .on_event("in", move |_: Socket, (to, event, rest): (To, String, Args)| {
            drop(everyone.to(to.rooms).except(to.except).emit(&event, &rest));
            "sent"
        })
        .on_event("ask", async |socket: Socket, (event, rest): (String, Args)| {
            #[derive(Serialize)]
            #[serde(untagged)]
            enum Answer {
                Came { ok: bool, vals: Args },
                Missing { ok: bool, error: &'static str },
            }
            match socket.timeout(Duration::from_secs(2)).emit_with_ack::<Args>(&event, &rest).await {
                Ok(vals) => Answer::Came { ok: true, vals },
                Err(_) => Answer::Missing { ok: false, error: "timeout" },
            }
        })
        .on_event("kick", |socket: Socket, close: Option<bool>| socket.disconnect(close.unwrap_or(false)))
        .on_event("kill-engine", |socket: Socket| socket.conn().close())
        .on_event("handshake", |socket: Socket| handshake(&socket))
        .on_event("whoami", |socket: Socket| {
            let conn = socket.conn();
            json!({ "sid": socket.id(), "eid": conn.id(), "transport": conn.transport(), "protocol": 4, "recovered": false })
        })
        .on_event("burst", |socket: Socket, count: u32| {
            for i in 0..count {
                let sent = match i % 7 {
                    0 => socket.emit("b", &(i, Binary::from(vec![i as u8]))),
                    _ => socket.emit("b", &(i, format!("t{i}"))),
                };
                drop(sent);
            }
            "done"
        })
        .on_event("big", |_: Socket, length: usize| "x".repeat(length))
        .on_event("bigbin", |_: Socket, length: usize| Binary::from(vec![7; length]))
        .on_event("volatile", |socket: Socket| drop(socket.volatile().emit("vol", &1)))
        .on_event("throw-away", |_: Socket, ack: Ack| drop(ack));
}

/// The rooms of a socket but its own.
fn other_rooms(socket: &Socket) -> Vec<String> {
    let mut rooms = socket.rooms().unwrap_or_default();
    rooms.retain(|room| room != socket.id());
    rooms.sort();
    rooms
}

fn handshake(socket: &Socket) -> Value {
    let handshake = socket.handshake();
    json!({
        "query": handshake.query(),
        "auth": auth_of(socket),
        "xdomain": handshake.xdomain(),
        "secure": handshake.secure(),
        "url": handshake.url(),
        "issuedIsNumber": true,
        "timeIsString": true,
        "address": handshake.address().ip(),
        "headers": { "host": handshake.header("host"), "x-kit": handshake.header("x-kit") },
    })
}

/// What the server decoded, in one string for each argument.
fn types(all: &Args) -> Vec<String> {
    let values = all.to_values().unwrap_or_default();
    values
        .iter()
        .enumerate()
        .map(|(i, value)| if all.is_binary(i) { binary(all, i) } else { describe(value) })
        .collect()
}

fn binary(all: &Args, position: usize) -> String {
    format!("binary:{}", all.get::<Binary>(position).map_or(0, |bytes| bytes.len()))
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => format!("boolean:{value}"),
        Value::Number(value) => format!("number:{value}"),
        Value::String(value) => format!("string:{}", value.chars().count()),
        Value::Array(values) => format!("array:{}", values.len()),
        Value::Object(members) => {
            let mut keys: Vec<_> = members.keys().map(String::as_str).collect();
            keys.sort_unstable();
            format!("object:{}", keys.join("|"))
        }
    }
}
