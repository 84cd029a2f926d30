//! Publishing: whom a back end reaches, what is refused, and what pressure is answered with.

use crate::poller::Poller;
use crate::program::{KEY, Program};
use crate::support::http::{Connection, Response};
use serde_json::{Value, json};

#[test]
fn what_a_back_end_publishes_reaches_whom_it_is_for_and_they_are_counted() {
    let program = Program::start(&[]);
    let (mut home, mut away, mut both) =
        (Poller::connect(&program), Poller::connect(&program), Poller::connect(&program));
    assert_eq!(home.ask(json!(["join", "home"])), json!(["home"]));
    assert_eq!(away.ask(json!(["join", "away"])), json!(["away"]));
    both.ask(json!(["join", ["home", "away"]]));

    let sent = |body: Value| {
        let answer = program.publish(body);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        answer.json()
    };
    assert_eq!(sent(json!({"event": "a"})), json!({"sockets": 3}));
    assert_eq!(
        sent(json!({"event": "b", "rooms": ["home", "away"], "args": ["x", {"y": [1]}]})),
        json!({"sockets": 3})
    );
    assert_eq!(sent(json!({"event": "c", "rooms": ["home"], "except": ["away"]})), json!({"sockets": 1}));
    assert_eq!(sent(json!({"event": "d", "rooms": ["nowhere"], "volatile": false})), json!({"sockets": 0}));
    let batch = json!([{"event": "e", "rooms": ["away"]}, {"event": "f"}, {"event": "g", "rooms": ["nowhere"]}]);
    assert_eq!(sent(batch), json!({"sockets": [2, 3, 0]}));
    assert_eq!(sent(json!([])), json!({"sockets": []}));

    let events = |client: &mut Poller, count: usize| -> Vec<Value> { (0..count).map(|_| client.event()).collect() };
    let b = json!(["b", "x", {"y": [1]}]);
    assert_eq!(events(&mut home, 4), [json!(["a"]), b.clone(), json!(["c"]), json!(["f"])]);
    assert_eq!(events(&mut away, 4), [json!(["a"]), b.clone(), json!(["e"]), json!(["f"])]);
    assert_eq!(events(&mut both, 4), [json!(["a"]), b, json!(["e"]), json!(["f"])]);

    let stats = program.stats();
    assert_eq!((&stats["sockets"], &stats["transports"]), (&json!(3), &json!({"polling": 3, "websocket": 0})));
    assert_eq!((&stats["broadcasts"], &stats["deliveries"]), (&json!(7), &json!(12)));
}

#[test]
fn rooms_follow_the_rules_of_the_file() {
    let text = r#"
        [namespaces."/"]
        client_events = ["move"]
        [namespaces."/".rooms."hall"]
        policy = "conflate"
        conflate_every = "1m"
        [namespaces."/".rooms."board:*"]
        retain = true
    "#;
    let program = Program::with_file("feeds", text, &[]);
    let (mut client, mut mover) = (Poller::connect(&program), Poller::connect(&program));
    client.ask(json!(["join", "hall"]));
    let price = |price: u32| json!({"event": "price", "rooms": ["hall"], "conflate": "ACME", "args": [price]});
    assert_eq!(program.publish(price(1)).json(), json!({"sockets": 1}));
    assert_eq!(client.event(), json!(["price", 1]), "the first one leaves at once");
    for now in 2..=3 {
        assert_eq!(program.publish(price(now)).json(), json!({"sockets": 1}));
    }
    for step in 1..=2 {
        assert_eq!(mover.ask(json!(["move", {"to": "hall"}, step])), json!({"sockets": 1}));
    }
    program.publish(json!([{"event": "noted", "rooms": ["board:a"]}, {"event": "end"}]));
    let expected = [json!(["price", 3]), json!(["move", 2]), json!(["end"])];
    expected.into_iter().for_each(|event| assert_eq!(client.event(), event));
    client.emit(json!(["join", "board:a"]));
    assert_eq!(client.event(), json!(["noted"]));

    let long = json!({"event": "a", "conflate": "k".repeat(257)});
    let answer = program.publish(long);
    assert_eq!((answer.status, answer.error()), (400, "conflate: a key of 257 bytes is longer than 256".into()));
}

#[test]
fn a_batch_with_one_mistake_sends_nothing() {
    let program = Program::start(&[]);
    let mut client = Poller::connect(&program);
    let answer = program.publish(json!([{"event": "a"}, {"event": "b", "rooms": "c"}]));
    assert_eq!((answer.status, answer.error()), (400, "events[1].rooms: expected a list of strings".into()));
    program.publish(json!({"event": "later"}));
    assert_eq!(client.event(), json!(["later"]));
}

#[test]
fn what_cannot_be_published_is_refused_with_its_reason() {
    let program = Program::start(&["--publish-bytes-max", "1KB", "--publish-batch-max", "2"]);
    let refused = |body: &str| {
        let answer = program.request("POST", "/api/publish", &[], body);
        (answer.status, answer.error())
    };
    let large = format!(r#"{{"event":"a","args":["{}"]}}"#, "x".repeat(1000));
    assert_eq!(refused(&large), (413, "the body is larger than limits.publish_bytes_max, 1000 bytes".into()));
    assert_eq!(refused("[{},{},{}]"), (413, "3 events are more than limits.publish_batch_max, 2".into()));
    assert_eq!(refused("{"), (400, "the body is not JSON: EOF while parsing an object at line 1 column 1".into()));
    assert_eq!(refused("{}"), (400, "event: is missing".into()));
    assert_eq!(
        refused(r#"{"event":"a","namespace":"/b"}"#),
        (404, r#"namespace: "/b" does not exist; the configuration has "/""#.into())
    );
    assert_eq!(refused(r#"{"event":"a"}"#.trim_end_matches('}')).0, 400);
}

#[test]
fn a_publish_with_a_key_is_sent_once_however_often_it_comes() {
    let program = Program::start(&[]);
    let mut client = Poller::connect(&program);
    let publish = |key: &str, body: &str| program.request("POST", "/api/publish", &[("Idempotency-Key", key)], body);
    let replayed = |answer: &Response| answer.header("idempotent-replayed").is_some();
    let first = publish("\"order-7\"", r#"{"event":"paid"}"#);
    assert_eq!((first.status, first.json(), replayed(&first)), (200, json!({"sockets": 1}), false));
    for key in ["order-7", "\"order-7\""] {
        let again = publish(key, r#"{"event":"paid"}"#);
        assert_eq!((again.status, again.json(), replayed(&again)), (200, json!({"sockets": 1}), true));
    }
    let other = publish("order-7", r#"{"event":"late"}"#);
    assert_eq!(other.status, 422);
    assert_eq!(other.error(), "this Idempotency-Key was used for another body within limits.idempotency_time, 300 s");
    let spaced = publish("order 7", r#"{"event":"late"}"#);
    assert_eq!(spaced.status, 400);
    assert!(spaced.error().starts_with("Idempotency-Key has a character that is not visible ASCII"));
    assert_eq!(publish("order-8", r#"{"event":"paid too"}"#).status, 200);
    assert_eq!((client.event(), client.event()), (json!(["paid"]), json!(["paid too"])));
    let publishes = &program.stats()["publishes"];
    assert_eq!((&publishes["keys"], &publishes["replayed"]), (&json!(2), &json!(2)));
    assert_eq!(program.stats()["broadcasts"], json!(2));
}

#[test]
fn publishers_that_are_too_many_are_told_when_to_come_back() {
    let program = Program::start(&["--publishes-pending-bytes-max", "1KB"]);
    let mut slow = Connection::open(program.address);
    let head = format!("POST /api/publish HTTP/1.1\r\nHost: {}\r\nContent-Length: 990\r\n\r\n", program.address);
    slow.write(head);
    while program.stats()["publishes"]["pending_bytes"] != json!(990) {}
    let refused = program.publish(json!({"event": "a"}));
    let text = "the server is behind: bodies of 990 bytes are not fanned out yet, and \
                limits.publishes_pending_bytes_max is 1000; nothing was sent, try again later";
    assert_eq!((refused.status, refused.error()), (503, text.into()));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&wait), "{wait}");
    slow.write(format!("{:990}", r#"{"event":"b"}"#));
    assert_eq!(slow.response().status, 200);
    assert_eq!(program.publish(json!({"event": "a"})).status, 200);
    let publishes = &program.stats()["publishes"];
    assert_eq!((&publishes["pending_bytes"], &publishes["refused_busy"]), (&json!(0), &json!(1)));
}

#[test]
fn publishers_together_have_a_rate() {
    let program = Program::start(&["--publishes-per-second-max", "1"]);
    // Far more than a second's worth: it passes because nothing was published before, and is paid for afterwards.
    let batch: Vec<_> = (0..1000).map(|_| json!({"event": "a"})).collect();
    assert_eq!(program.publish(json!(batch)).status, 200);
    let refused = program.publish(json!({"event": "a"}));
    assert_eq!(refused.status, 429);
    assert!(
        refused.error().starts_with("more than limits.publishes_per_second_max, 1 events a second: there is room in"),
        "{}",
        refused.error()
    );
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 1);
    assert_eq!(program.stats()["publishes"]["refused_rate"], json!(1));
    assert_eq!(program.stats()["broadcasts"], json!(1000));
}

#[test]
fn what_volatile_events_miss_is_counted_in_the_answer() {
    let program = Program::start(&[]);
    let mut client = Poller::connect(&program);
    assert_eq!(program.publish(json!({"event": "a", "volatile": true})).json(), json!({"sockets": 0, "dropped": 1}));
    let batch = json!([{"event": "b"}, {"event": "c", "volatile": true}]);
    assert_eq!(program.publish(batch).json(), json!({"sockets": [1, 0], "dropped": [0, 1]}));
    assert_eq!(client.event(), json!(["b"]));
}

#[test]
fn a_body_in_chunks_is_limited_like_any_other() {
    let program = Program::start(&["--publish-bytes-max", "1KB"]);
    let mut line = Connection::open(program.address);
    let head = format!("POST /api/publish HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", program.address);
    let chunk = format!("400\r\n{}\r\n0\r\n\r\n", " ".repeat(1024));
    line.write(head + &chunk);
    assert_eq!(line.response().status, 413);
}

#[test]
fn with_a_key_only_those_who_show_it_may_publish() {
    let program = Program::start(&["--publish-key", KEY]);
    let publish = |headers: &[(&str, &str)]| program.request("POST", "/api/publish", headers, r#"{"event":"a"}"#);
    let missing = publish(&[]);
    assert_eq!(missing.status, 401);
    assert_eq!(missing.error(), "this server wants its publish key: `Authorization: Bearer KEY`");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"fanfare\""));
    let wrong = publish(&[("Authorization", "Bearer a-key-of-the-tesT")]);
    assert_eq!((wrong.status, wrong.error()), (401, "this is not the server's publish key".into()));
    assert_eq!(wrong.header("www-authenticate"), Some("Bearer realm=\"fanfare\", error=\"invalid_token\""));
    let bearer = format!("Bearer {KEY}");
    let from_elsewhere =
        [("Authorization", bearer.as_str()), ("Origin", "https://example.com"), ("Host", "example.com")];
    assert_eq!(publish(&from_elsewhere).status, 200);
    assert_eq!(program.stats()["publish_key_required"], json!(true));
}

#[test]
fn without_a_key_pages_of_others_cannot_publish() {
    let program = Program::start(&[]);
    let publish = |headers: &[(&str, &str)]| program.request("POST", "/api/publish", headers, r#"{"event":"a"}"#);
    let host = program.address.to_string();
    let own = format!("http://{host}");
    assert_eq!(publish(&[("Host", &host), ("Origin", &own)]).status, 200);
    let foreign = publish(&[("Origin", "http://evil.example")]);
    assert_eq!(foreign.status, 403);
    assert!(
        foreign.error().starts_with("a page of \"http://evil.example\" may not publish here"),
        "{}",
        foreign.error()
    );
    let rebound = publish(&[("Host", "evil.example:3000"), ("Origin", "http://evil.example:3000")]);
    assert_eq!(rebound.status, 403);
    assert!(rebound.error().starts_with("\"evil.example:3000\" is not a name of this machine's loopback"));
}
