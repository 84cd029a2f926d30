//! Whole conversations, however their bytes are cut, and every way in which they end.

use super::*;
use crate::frame::{self, Opcode};
use crate::options::Options;
use clap::Parser;
use speech::Speech;

const UPGRADED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nSEC-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const OPEN: &str = "0{\"sid\":\"a-1\",\"upgrades\":[\"websocket\"]}";
/// Every request has these, and what [`words`] adds.
const HOST: &str = " HTTP/1.1\r\nHost: h:1\r\nA: b\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Version: 13\r\n\r\n";

fn words(flags: &[&str]) -> Words {
    words_at("http://h:1", flags)
}

fn words_at(url: &str, flags: &[&str]) -> Words {
    let begin = ["loadtest", url, "--header", "A: b"];
    let options = Options::try_parse_from(begin.iter().chain(flags)).expect("all are flags");
    let speech = Speech::new(&options).expect("they fit together");
    let target = options.target.speaking(speech.protocol);
    Words::new(&target.host(), &target.path, &speech)
}

/// Frames as a server sends them: the first byte, then the payload.
fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
    let frame = |&(first, payload): &(u8, &[u8])| [&[first, payload.len() as u8], payload].concat();
    frames.iter().flat_map(frame).collect()
}

/// Frames as a client sends them.
fn masked(frames: &[(Opcode, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|(opcode, payload)| frame::put(*opcode, payload.as_bytes(), &mut bytes));
    bytes
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn closing(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
    format!("{head} {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn get(query: &str) -> Vec<u8> {
    format!("GET /socket.io/?EIO=4&transport=polling{query}{HOST}\r\n").into_bytes()
}

fn post(query: &str, body: &str) -> Vec<u8> {
    let head = format!("POST /socket.io/?EIO=4&transport=polling{query}{HOST}");
    format!("{head}Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// How the bytes of a server come: whole, cut in two after so many bytes of all, or one by one.
#[derive(Clone, Copy, Debug)]
enum Pieces {
    Whole,
    Cut(usize),
    Single,
}

#[derive(Debug, PartialEq)]
struct Heard {
    /// What the client said on each stream.
    said: Vec<Vec<u8>>,
    messages: Vec<String>,
    end: Result<Stage, Ending>,
}

/// What a client says and hears when a server sends these turns on these streams. A turn is what comes before the
/// client has been heard again. It joins the room `news` once ready.
fn talk(words: &Words, streams: &[&[Vec<u8>]], pieces: Pieces) -> Heard {
    let (mut session, mut messages, mut said, mut before) = (Session::new(words), Vec::new(), Vec::new(), 0);
    let mut end = None;
    for (number, stream) in streams.iter().enumerate() {
        let mut out = Vec::new();
        session.begin(words, &mut out);
        let mut next = Next::Stay;
        for turn in *stream {
            let pieces: Vec<&[u8]> = match pieces {
                Pieces::Cut(at) if (before..before + turn.len()).contains(&at) => {
                    <[&[u8]; 2]>::from(turn.split_at(at - before)).into()
                }
                Pieces::Whole | Pieces::Cut(_) => vec![turn],
                Pieces::Single => turn.chunks(1).collect(),
            };
            before += turn.len();
            for piece in pieces {
                assert_eq!((next, &end), (Next::Stay, &None), "nothing more comes on this stream");
                let stage = session.stage();
                let mut on_message = |text: &[u8]| messages.push(String::from_utf8_lossy(text).into_owned());
                match session.receive(words, piece, &mut out, &mut on_message) {
                    Ok(()) if stage != Stage::Ready && session.stage() == Stage::Ready => {
                        session.join(words, "news", &mut out);
                    }
                    Ok(()) => {}
                    Err(ending) => end = Some(ending),
                }
                next = session.flush(words, &mut out);
            }
        }
        said.push(out);
        let expected = if number + 1 < streams.len() { Next::Reconnect } else { Next::Stay };
        assert!(end.is_some() || next == expected, "{next:?} after stream {number}");
    }
    if let (Transport::WebSocket(websocket), None) = (&session.transport, &end) {
        assert!(websocket.waits_for_nothing(), "everything was whole");
    }
    Heard { said, messages, end: end.map_or(Ok(session.stage()), Err) }
}

/// The conversation is the same however the bytes come.
fn check(words: &Words, streams: &[&[Vec<u8>]], said: &[Vec<u8>], messages: &[&str]) {
    let bytes = streams.iter().flat_map(|stream| stream.iter()).map(Vec::len).sum();
    let messages: Vec<String> = messages.iter().map(|text| (*text).to_owned()).collect();
    let expected = Heard { said: said.to_vec(), messages, end: Ok(Stage::Ready) };
    for pieces in (0..bytes).map(Pieces::Cut).chain([Pieces::Whole, Pieces::Single]) {
        assert_eq!(talk(words, streams, pieces), expected, "{pieces:?}");
    }
}

#[test]
fn socketio_over_websocket() {
    let begin = [UPGRADED, &frames(&[(0x81, OPEN.as_bytes()), (0x81, b"40/x,{\"sid\":\"b\"}")])].concat();
    let rest = frames(&[
        (0x81, b"2"),
        (0x81, b"42/x,[\"msg\",\"one\"]"),
        (0x81, b"42/x,[\"other\",\"event\"]"),
        (0x81, b"42[\"msg\",\"of another namespace\"]"),
        (0x01, b"42/x,[\"ms"),
        (0x89, b"hi"),
        (0x00, b"g\",\"tw"),
        (0x80, b"o\"]"),
        (0x81, b"451-/x,[\"msg\",{}]"),
        (0x82, b"\x00\x01"),
        (0x02, b"\x00"),
        (0x80, b"\x01"),
        (0x81, b"6"),
    ]);
    let said = masked(&[
        (Opcode::Text, "40/x,{\"token\":1}"),
        (Opcode::Text, "42/x,[\"join\",\"news\"]"),
        (Opcode::Text, "3"),
        (Opcode::Pong, "hi"),
    ]);
    let request = format!("GET /socket.io/?EIO=4&transport=websocket{HOST}{UPGRADE}");
    let words = words(&["--namespace", "/x", "--auth", "{\"token\":1}"]);
    check(&words, &[&[begin, rest]], &[[request.as_bytes(), &said].concat()], &["one\"]", "two\"]"]);
}

#[test]
fn socketio_over_polling() {
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n42[\"msg\",\r\n6\r\n\"two\"]\r\n0\r\n\r\n";
    let server = [
        ok(OPEN),
        [ok("ok"), ok("40{\"sid\":\"b\"}\u{1e}42[\"msg\",\"one\"]")].concat(),
        [ok("ok"), ok("2\u{1e}bAAE=\u{1e}451-[\"msg\",{}]\u{1e}6")].concat(),
        [ok("ok"), chunked.to_vec()].concat(),
    ];
    let sid = "&sid=a-1";
    let said = [
        get(""),
        post(sid, "40"),
        get(sid),
        post(sid, "42[\"join\",\"news\"]"),
        get(sid),
        post(sid, "3"),
        get(sid),
        get(sid),
    ];
    check(&words(&["--transport", "polling"]), &[&server], &[said.concat()], &["one\"]", "two\"]"]);
}

#[test]
fn a_polling_stream_that_closes_is_followed_by_another() {
    let streams: [&[Vec<u8>]; 4] =
        [&[closing(OPEN)], &[closing("ok")], &[closing("40{}")], &[[ok("ok"), ok("42[\"msg\",\"one\"]")].concat()]];
    let sid = "&sid=a-1";
    let said = [
        get(""),
        [post(sid, "40"), get(sid)].concat(),
        get(sid),
        [post(sid, "42[\"join\",\"news\"]"), get(sid), get(sid)].concat(),
    ];
    check(&words(&["--transport", "polling"]), &streams, &said, &["one\"]"]);
}

#[test]
fn what_is_said_while_a_poll_hangs_follows_its_answer() {
    let words = words(&["--transport", "polling"]);
    let (mut session, mut out) = (Session::new(&words), Vec::new());
    session.begin(&words, &mut out);
    let mut turn = |bytes: &[u8], rooms: &[&str]| {
        out.clear();
        session.receive(&words, bytes, &mut out, &mut |_| {}).expect("it goes on");
        rooms.iter().for_each(|room| session.join(&words, room, &mut out));
        assert_eq!(session.flush(&words, &mut out), Next::Stay);
        String::from_utf8_lossy(&out).into_owned()
    };
    turn(&ok(OPEN), &[]);
    turn(&[ok("ok"), ok("40{}")].concat(), &[]);
    assert_eq!(turn(b"", &["a", "b"]), "", "the poll hangs");
    let both = post("&sid=a-1", "42[\"join\",\"a\"]\u{1e}42[\"join\",\"b\"]");
    assert_eq!(turn(&ok("6"), &[]).as_bytes(), [both, get("&sid=a-1")].concat());
}

#[test]
fn socketio_upgraded() {
    let polling =
        [ok(OPEN), [ok("ok"), ok("40/x,{\"sid\":\"b\"}\u{1e}2\u{1e}42/x,[\"msg\",\"one\"]")].concat(), ok("ok")];
    let websocket =
        [UPGRADED.to_vec(), frames(&[(0x81, b"3probe")]), frames(&[(0x81, b"42/x,[\"msg\",\"two\"]"), (0x81, b"2")])];
    let sid = "&sid=a-1";
    let first = [get(""), post(sid, "40/x,"), get(sid), post(sid, "3")];
    let upgrade = format!("GET /socket.io/?EIO=4&transport=websocket{sid}{HOST}{UPGRADE}");
    let second = masked(&[
        (Opcode::Text, "2probe"),
        (Opcode::Text, "5"),
        (Opcode::Text, "42/x,[\"join\",\"news\"]"),
        (Opcode::Text, "3"),
    ]);
    let said = [first.concat(), [upgrade.as_bytes(), &second].concat()];
    let words = words(&["--transport", "upgrade", "--namespace", "/x"]);
    check(&words, &[&polling, &websocket], &said, &["one\"]", "two\"]"]);
}

#[test]
fn what_is_left_to_be_said_precedes_an_upgrade() {
    let streams: [&[Vec<u8>]; 3] = [
        &[ok(OPEN), [ok("ok"), closing("40{}\u{1e}2")].concat()],
        &[ok("ok")],
        &[UPGRADED.to_vec(), frames(&[(0x81, b"3probe")])],
    ];
    let sid = "&sid=a-1";
    let first = [get(""), post(sid, "40"), get(sid)].concat();
    let upgrade = format!("GET /socket.io/?EIO=4&transport=websocket{sid}{HOST}{UPGRADE}");
    let third = masked(&[(Opcode::Text, "2probe"), (Opcode::Text, "5"), (Opcode::Text, "42[\"join\",\"news\"]")]);
    let said = [first, post(sid, "3"), [upgrade.as_bytes(), &third].concat()];
    check(&words(&["--transport", "upgrade"]), &streams, &said, &[]);
}

#[test]
fn plain_websocket() {
    let server = [
        UPGRADED.to_vec(),
        frames(&[
            (0x81, b"~one"),
            (0x82, b"{\"text\":\"~two\"}"),
            (0x89, b"hi"),
            (0x81, b"hello"),
            (0x02, b"\x00~th"),
            (0x80, b"ree"),
        ]),
    ];
    let request = format!("GET /?a=b{HOST}{UPGRADE}");
    let frames = masked(&[(Opcode::Text, "join news!"), (Opcode::Pong, "hi")]);
    let words = words_at("http://h:1?a=b", &["--protocol", "ws", "--subscribe", "join {room}!", "--room", "news"]);
    let said = [request.as_bytes(), &frames].concat();
    check(&words, &[&server], &[said], &["~one", "~two\"}", "~three"]);
}

#[test]
fn a_greeting_is_sent_once_connected() {
    let words = words(&["--protocol", "ws", "--subscribe", "hello"]);
    let (mut session, mut out) = (Session::new(&words), Vec::new());
    session.receive(&words, UPGRADED, &mut out, &mut |_| {}).expect("it goes on");
    assert_eq!((session.stage(), out), (Stage::Ready, masked(&[(Opcode::Text, "hello")])));
}

#[test]
fn what_is_published() {
    let table: [(&[&str], &str); 3] = [
        (&["--publish", "event:a\"b"], "42[\"a\\\"b\",\"~text\"]"),
        (&["--publish", "event:pub", "--namespace", "/x"], "42/x,[\"pub\",\"~text\"]"),
        (&["--protocol", "ws"], "~text"),
    ];
    for (flags, text) in table {
        let (words, mut out) = (words(flags), Vec::new());
        Session::new(&words).put(&words, "~text", None, &mut out);
        assert_eq!(out, masked(&[(Opcode::Text, text)]));
    }
}

#[test]
fn a_room_is_told_behind_the_text() {
    let (words, mut out) = (words(&["--publish", "event:pub", "--room", "a\"b"]), Vec::new());
    Session::new(&words).put(&words, "~text", Some("a\"b"), &mut out);
    assert_eq!(out, masked(&[(Opcode::Text, "42[\"pub\",\"~text\",\"a\\\"b\"]")]));
}

#[test]
fn a_query_of_the_url_is_kept() {
    let words = words_at("http://h:1/io/?token=a", &[]);
    let mut out = Vec::new();
    Session::new(&words).begin(&words, &mut out);
    assert!(out.starts_with(b"GET /io/?token=a&EIO=4&transport=websocket HTTP/1.1\r\n"));
}

#[test]
fn every_ending_over_websocket_has_its_reason() {
    let open: (u8, &[u8]) = (0x81, b"0{}");
    let joined: (u8, &[u8]) = (0x81, b"40/x,{}");
    let refused = Ending::NamespaceRefused("Invalid namespace".to_owned());
    type Row<'a> = (&'a [(u8, &'a [u8])], Ending);
    let table: [Row<'_>; 14] = [
        (&[open, (0x81, b"44/x,{\"message\":\"Invalid namespace\"}")], refused),
        (&[open, (0x81, b"44/x,\"odd\"")], Ending::NamespaceRefused("\"odd\"".to_owned())),
        (&[open, open], Ending::EngineIo),
        (&[open, joined, joined], Ending::SocketIo),
        (&[open, joined, (0x81, b"41/x,")], Ending::Disconnected),
        (&[open, (0x81, b"1")], Ending::EngineClosed),
        (&[open, (0x88, b"\x03\xe9")], Ending::Closed(Some(1001))),
        (&[open, (0x88, b"")], Ending::Closed(None)),
        (&[open, (0x88, b"\x03\xf0slow client")], Ending::SlowClient),
        (&[open, (0x88, b"\x03\xf0rate limit")], Ending::Closed(Some(1008))),
        (&[(0x81, b"")], Ending::EngineIo),
        (&[(0x80, b"x")], Ending::Fragments),
        (&[(0x01, b"x"), (0x81, b"x")], Ending::Fragments),
        (&[(0xc1, b"x")], Ending::Frame(frame::Error::ReservedBitSet)),
    ];
    let words = words(&["--namespace", "/x"]);
    for (sent, ending) in table {
        let bytes = [UPGRADED, &frames(sent)].concat();
        assert_eq!(talk(&words, &[&[bytes]], Pieces::Whole).end, Err(ending), "{sent:?}");
    }
}

#[test]
fn an_upgrade_must_be_answered_properly() {
    let wrong = String::from_utf8_lossy(UPGRADED).replace("s3p", "S3P");
    let refused = Ending::UpgradeRefused("HTTP/1.1 400 Bad Request".to_owned());
    let table: [(&[u8], Ending); 3] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", refused),
        (wrong.as_bytes(), Ending::WrongAcceptKey),
        (b"220 smtp ready\r\n", Ending::NotHttp),
    ];
    for flags in [&[][..], &["--protocol", "ws"]] {
        for (answer, ending) in &table {
            let heard = talk(&words(flags), &[&[answer.to_vec()]], Pieces::Whole);
            assert_eq!(heard.end, Err(ending.clone()), "{flags:?}");
        }
    }
}

#[test]
fn every_ending_over_polling_has_its_reason() {
    let bad = || b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}".to_vec();
    let line = || "HTTP/1.1 400 Bad Request".to_owned();
    let joined = || [ok("ok"), ok("40{}")].concat();
    let refused = || [ok("ok"), ok("44{\"message\":\"Invalid namespace\"}")].concat();
    let long = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_vec();
    let table = [
        (vec![bad()], Ending::HandshakeRefused(line())),
        (vec![b"220 smtp ready\r\n".to_vec()], Ending::NotHttp),
        (vec![long], Ending::AnswerTooLong),
        (vec![ok("hello")], Ending::EngineIo),
        (vec![ok("0{}")], Ending::EngineIo),
        (vec![ok("2")], Ending::EngineIo),
        (vec![ok(OPEN), bad()], Ending::PostRefused(line())),
        (vec![ok(OPEN), [ok("ok"), bad()].concat()], Ending::PollRefused(line())),
        (vec![ok(OPEN), [ok("ok"), ok("")].concat()], Ending::EngineIo),
        (vec![ok(OPEN), refused()], Ending::NamespaceRefused("Invalid namespace".to_owned())),
        (vec![ok(OPEN), joined(), [ok("ok"), ok("41")].concat()], Ending::Disconnected),
        (vec![ok(OPEN), joined(), [ok("ok"), ok("6\u{1e}1")].concat()], Ending::EngineClosed),
        (vec![[ok(OPEN), bad()].concat()], Ending::Unasked(line())),
    ];
    let words = words(&["--transport", "polling"]);
    for (turns, ending) in table {
        assert_eq!(talk(&words, &[&turns], Pieces::Whole).end, Err(ending), "{turns:?}");
    }
}

#[test]
fn every_ending_of_an_upgrade_has_its_reason() {
    let words = words(&["--transport", "upgrade"]);
    let none = [ok("0{\"sid\":\"a\",\"upgrades\":[]}")];
    assert_eq!(talk(&words, &[&none], Pieces::Whole).end, Err(Ending::NoUpgrade));
    let polling = [ok(OPEN), [ok("ok"), ok("40{}")].concat()];
    let line = "HTTP/1.1 400 Bad Request";
    let table = [
        (format!("{line}\r\n\r\n").into_bytes(), Ending::UpgradeRefused(line.to_owned())),
        ([UPGRADED, &frames(&[(0x81, b"3")])].concat(), Ending::Probe),
        ([UPGRADED, &frames(&[(0x81, b"2")])].concat(), Ending::Probe),
        ([UPGRADED, &frames(&[(0x88, b"")])].concat(), Ending::Closed(None)),
    ];
    for (answer, ending) in table {
        assert_eq!(talk(&words, &[&polling, &[answer]], Pieces::Whole).end, Err(ending));
    }
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 24, "{} bytes", size_of::<Session>());
}
