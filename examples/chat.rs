//! Chat: rooms, who is here, who is typing, and a page to try it with.
//!
//!     cargo run --example chat
//!
//! Then open http://127.0.0.1:3000 in two windows. Everything that a small Socket.IO server needs is on this page: a
//! middleware that knows people by name, events with typed arguments, acks, rooms, volatile events, and a service for
//! the paths that are not Socket.IO's. Any stock Socket.IO client may connect instead of the page.

use bytes::Bytes;
use clap::Parser;
use fanfare::{ConnectError, Io, Socket, StartError};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

#[derive(Parser)]
struct Arguments {
    /// Port on 127.0.0.1.
    #[arg(long, default_value_t = 3000)]
    port: u16,
}

/// What the client must say about itself: `io({ auth: { name } })`.
#[derive(Deserialize)]
struct Auth {
    name: String,
}

/// Kept with the socket from the middleware on. Any type can be: `socket.insert(…)`, `socket.get::<…>()`.
struct Name(String);

/// What is said in a room. Whatever serde can write is an argument.
#[derive(Serialize)]
struct Said<'a> {
    from: &'a str,
    text: &'a str,
}

/// A room's name: rooms need no more, they exist while somebody is in them.
type Room = String;

/// Who sits where, by socket id. Handlers run on all workers, so what they share is behind a lock.
type Seats = Arc<Mutex<BTreeMap<String, (Room, Arc<Name>)>>>;

#[allow(clippy::print_stdout)]
fn main() -> Result<(), StartError> {
    let arguments = Arguments::parse();
    let seats = Seats::default();
    let io = Io::new();
    let chat = io.of("/");

    // Asked before a client is let in. The error arrives there as `connect_error`.
    chat.middleware(|socket: Socket| {
        let auth: Auth = socket.handshake().auth().map_err(|_| ConnectError::new("say your name"))?;
        let name = auth.name.trim();
        if name.is_empty() || name.chars().count() > 20 {
            return Err(ConnectError::new("a name has 1 to 20 characters"));
        }
        socket.insert(Name(name.into()));
        Ok(())
    });

    // What a handler returns is the ack, if the client asks for one: here, the room as it is written.
    chat.on_event("join", {
        let seats = Arc::clone(&seats);
        move |socket: Socket, room: String| {
            let room: Room = room.trim().to_lowercase().chars().take(30).collect();
            stand_up(&socket, &seats);
            // Joining fails for a socket that has left meanwhile. It has no use for an answer then.
            if let (Some(name), Ok(())) = (socket.get::<Name>(), socket.join(&room)) {
                seats.lock().unwrap().insert(socket.id().into(), (room.clone(), name));
                tell_who_is_here(socket.io(), &seats, &room);
            }
            room
        }
    });

    // An async handler may wait; other events go on meanwhile. This one's ack is how many others it reached.
    chat.on_event("say", {
        let seats = Arc::clone(&seats);
        move |socket: Socket, text: String| {
            let seat = seat_of(&socket, &seats);
            async move {
                let (room, name) = seat?;
                let said = Said { from: &name.0, text: &text };
                socket.to(&room).emit_and_count("said", &said).ok()?.await.ok().map(|counts| counts.sockets)
            }
        }
    });

    // Volatile: whoever is not ready to receive misses it, and nothing piles up. `to` leaves the sender out.
    chat.on_event("typing", {
        let seats = Arc::clone(&seats);
        move |socket: Socket| {
            if let Some((room, name)) = seat_of(&socket, &seats) {
                drop(socket.to(&room).volatile().emit("typing", &name.0));
            }
        }
    });

    chat.on_disconnect(move |socket: Socket, _| stand_up(&socket, &seats));

    let server = io.listen_with(("127.0.0.1", arguments.port), tower::service_fn(page))?;
    println!("open http://{}", server.address());
    server.wait();
    Ok(())
}

fn seat_of(socket: &Socket, seats: &Seats) -> Option<(Room, Arc<Name>)> {
    seats.lock().unwrap().get(socket.id()).cloned()
}

/// Leaves the room that the socket is in, if it is in one.
fn stand_up(socket: &Socket, seats: &Seats) {
    let seat = seats.lock().unwrap().remove(socket.id());
    if let Some((room, _)) = seat {
        socket.leave(&room);
        tell_who_is_here(socket.io(), seats, &room);
    }
}

/// Told while the lock is held, so that the list that arrives last is the newest.
fn tell_who_is_here(io: &Io, seats: &Seats, room: &str) {
    let seats = seats.lock().unwrap();
    let mut names: Vec<&str> = seats.values().filter(|seat| seat.0 == room).map(|seat| &*seat.1.0).collect();
    names.sort_unstable();
    // It fails only while the server closes, and then there is nobody to tell.
    drop(io.to(room).emit("here", &names));
}

/// All paths that are not Socket.IO's: any tower service, so an axum router too.
async fn page(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, page) = match request.uri().path() {
        "/" => (StatusCode::OK, include_str!("chat.html")),
        _ => (StatusCode::NOT_FOUND, "There is nothing here."),
    };
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "text/html; charset=utf-8");
    Ok(response.body(Full::from(page)).expect("the status and the header are valid"))
}
