//! Clients: rooms that they join, and what they may publish themselves.

use crate::poller::Poller;
use crate::program::Program;
use serde_json::json;

#[test]
fn clients_join_and_leave_and_are_told_where_they_are() {
    let program = Program::start(&["--rooms-per-socket-max", "3", "--room-bytes-max", "8"]);
    let mut client = Poller::connect(&program);
    assert_eq!(client.ask(json!(["join", ["b", "a", "b"]])).as_array().unwrap().len(), 2);
    assert_eq!(client.ask(json!(["leave", "b"])), json!(["a"]));
    assert_eq!(client.ask(json!(["leave", ["never", "there"]])), json!(["a"]));
    assert_eq!(
        client.ask(json!(["join", ["c", "d", "e"]])),
        json!({"error": "that would be more rooms than limits.rooms_per_socket_max, 3"})
    );
    assert_eq!(client.ask(json!(["join", []])), json!(["a"]), "a refused list joins nothing");
    assert_eq!(
        client.ask(json!(["join", ["c", "a-long-name"]])),
        json!({"error": "a room's name of 11 bytes is longer than limits.room_bytes_max, 8"})
    );
    for wrong in [json!(["join"]), json!(["join", 7]), json!(["join", ["c", 7]]), json!(["join", {"room": "c"}])] {
        assert_eq!(client.ask(wrong), json!({"error": "\"join\" wants a room's name or a list of them"}));
    }
    assert_eq!(program.stats()["events_refused"], json!(6));
}

#[test]
fn what_a_client_may_publish_goes_to_everyone_else_or_to_the_rooms_it_names() {
    let program = Program::start(&["--client-event", "say", "--client-event", "wave"]);
    let (mut sender, mut near, mut far) =
        (Poller::connect(&program), Poller::connect(&program), Poller::connect(&program));
    sender.ask(json!(["join", "near"]));
    near.ask(json!(["join", "near"]));
    assert_eq!(sender.ask(json!(["say", "hi", {"to": "all"}])), json!({"sockets": 2}));
    assert_eq!(sender.ask(json!(["say", {"to": "near"}, 1, 2])), json!({"sockets": 1}));
    assert_eq!(sender.ask(json!(["say", {"to": ["far", "nowhere"]}])), json!({"sockets": 0}));
    assert_eq!(sender.ask(json!(["say", {"to": []}])), json!({"error": "\"to\" names no room"}));
    sender.emit(json!(["wave", {"to": "far", "text": "an argument like any other"}]));
    assert_eq!(near.event(), json!(["say", "hi", {"to": "all"}]));
    assert_eq!(near.event(), json!(["say", 1, 2]));
    assert_eq!(near.event()[0], json!("wave"));
    assert_eq!(far.event(), json!(["say", "hi", {"to": "all"}]));
    assert_eq!(far.event(), json!(["wave", {"to": "far", "text": "an argument like any other"}]));
}

#[test]
fn an_event_that_is_not_in_the_configuration_is_refused_and_counted() {
    let text = "[namespaces.\"/\"]\nclient_events = [\"say\"]\n[namespaces.\"/quiet\"]\njoin = false\n";
    let program = Program::with_file("client-events", text, &[]);
    let (mut client, mut witness) = (Poller::connect(&program), Poller::connect(&program));
    assert_eq!(
        client.ask(json!(["shout", 1])),
        json!({"error": "event \"shout\" may not be published by clients; the configuration allows: \"say\""})
    );
    client.emit(json!(["shout", 2]));
    client.ask(json!(["say", 3]));
    assert_eq!(witness.event(), json!(["say", 3]), "nothing else came before");

    let mut quiet = Poller::connect_to(&program, "/quiet");
    assert_eq!(
        quiet.ask(json!(["say", 1])),
        json!({"error": "event \"say\" may not be published by clients; the configuration allows: none"})
    );
    assert_eq!(
        quiet.ask(json!(["join", "a"])),
        json!({"error": "clients may not join or leave rooms of \"/quiet\"; the configuration says join = false"})
    );
    let stats = program.stats();
    assert_eq!(stats["events_refused"], json!(4));
    assert_eq!(
        stats["namespaces"],
        json!([{"name": "/", "sockets": 2, "join": true}, {"name": "/quiet", "sockets": 1, "join": false}])
    );
}
