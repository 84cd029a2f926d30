//! Display: a snapshot of the run, drawn for somebody who watches.
//!
//! ```text
//!     measuring      ━━━━━━━━━━━━━━━━━━━━━━━━━━━──────────────  61 %   37 s
//!     clients        2,000 of 2,000 connected
//!     messages       370 of 600 published  1,234 under way
//!     deliveries     20,700 per second     ▁▅██████▇██        the last minute
//!     last receiver  p50 5.02 ms  p99 7.96 ms  max 340 ms
//!     server         1.72 cores  ▅▅▆▇▇██   123 MB  ▆▆▇▇▇██
//!     generator      ▂▂ busiest 31 %  publisher 1 %           a bar per thread
//!
//!     how far clients are behind         delays of last receivers
//!     ≤ 1 s ████████████ 1,998  99.9 %         █
//!     ≤ 2 s ▏                2   0.1 %        ▆█▃
//!     …                                     ╵1 ms   ╵10 ms   ╵100 ms
//! ```
//!
//! Pure: numbers in, a buffer of characters out. What becomes of it is the strip's business. On a terminal too low for
//! all of it, the panes below become one line; then lines are left out from the bottom.

use crate::clock::Nanos;
use crate::health::{BUSY_MAX, LAG_MIN};
use crate::history::{History, Second};
use crate::snapshot::{Behind, Snapshot};
use crate::tally::Times;
use crate::units::{bytes, count, nanos};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect, Size};
use ratatui::style::{Color, Style, Styled, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

/// Longer lines are hard to follow with the eye.
const WIDTH_MAX: u16 = 132;
/// Where the figures begin, after the longest label.
const LABEL: usize = 15;
/// Between two figures.
const GAP: &str = "  ";
/// Classes of `Behind`, and how bad they are.
const CLASSES: [(&str, Color); 6] = [
    ("≤ 1 s", Color::Green),
    ("≤ 2 s", Color::Cyan),
    ("≤ 3 s", Color::Yellow),
    ("≤ 5 s", Color::Yellow),
    ("≤10 s", Color::Red),
    (">10 s", Color::Red),
];
/// The panes are a caption above one line per class.
const PANES: u16 = 1 + CLASSES.len() as u16;
/// The histogram shows this many powers of ten at least, so that a narrow distribution looks narrow.
const DECADES_MIN: i32 = 2;
/// The histogram begins here at the earliest, with 10^-2 ms: below, the samples' own steps of a microsecond would show.
const DECADE_FIRST: i32 = -2;

/// Draws for a terminal of this `size`, and leaves one row of it for the cursor.
pub fn draw(snapshot: &Snapshot, history: &History, size: Size) -> Buffer {
    let (width, rows_max) = (size.width.min(WIDTH_MAX), size.height.saturating_sub(1));
    let (traffic, machines) = (traffic(snapshot, history, width.into()), machines(snapshot, history, width.into()));
    let rows_full = (traffic.len() + machines.len()) as u16 + 1 + PANES;
    let roomy = rows_full <= rows_max;
    let behind = (!roomy).then(|| behind_line(&snapshot.behind, width.into()));
    let lines: Vec<_> = traffic.into_iter().chain(behind).chain(machines).collect();
    let rows = if roomy { rows_full } else { rows_max.min(lines.len() as u16) };
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, rows));
    put(&lines, buffer.area, &mut buffer);
    if roomy {
        let below = Rect { y: rows - PANES, height: PANES, ..buffer.area };
        let [left, right] =
            Layout::horizontal([Constraint::Max(width / 2 + 2), Constraint::Min(0)]).spacing(3).areas(below);
        put(&behind_pane(&snapshot.behind, left.width.into()), left, &mut buffer);
        put(&last_pane(snapshot.last.as_ref(), right.width.into()), right, &mut buffer);
    }
    buffer
}

fn put(lines: &[Line], area: Rect, buffer: &mut Buffer) {
    lines.iter().zip(area.rows()).for_each(|(line, row)| line.render(row, buffer));
}

fn traffic(snapshot: &Snapshot, history: &History, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![phase(snapshot, width)];
    lines.extend(faults(snapshot, width));
    lines.extend([
        clients(snapshot, width),
        messages(snapshot, width),
        deliveries(snapshot, history, width),
        last(snapshot.last.as_ref(), width),
    ]);
    lines
}

fn machines(snapshot: &Snapshot, history: &History, width: usize) -> [Line<'static>; 2] {
    [server(snapshot, history, width), generator(snapshot, width)]
}

/// `phase ━━━━━──── 62 %   37 s`
fn phase(snapshot: &Snapshot, width: usize) -> Line<'static> {
    let time = format!("{:>7}", format!("{} s", count(snapshot.at / 1_000_000_000)));
    let mut spans = vec![format!("{:LABEL$}", snapshot.phase).bold().cyan()];
    let gauge = width.saturating_sub(LABEL + " 100 %".len() + time.len());
    match snapshot.progress.map(|progress| progress.clamp(0.0, 1.0)) {
        Some(progress) => {
            let done = (progress * gauge as f64).round() as usize;
            spans.push("━".repeat(done).cyan());
            spans.push("─".repeat(gauge - done).dim());
            spans.push(format!(" {:>3.0} %", (progress * 100.0).floor()).into());
        }
        None => spans.push("─".repeat(gauge).dim()),
    }
    spans.push(time.dim());
    Line::from(spans)
}

/// What a server must never do; the line is there only when it did.
fn faults(snapshot: &Snapshot, width: usize) -> Option<Line<'static>> {
    let kinds = [("doubled", snapshot.doubled), ("reordered", snapshot.reordered), ("stray", snapshot.stray)];
    let seen = kinds.into_iter().filter(|(_, number)| *number > 0);
    let parts: Vec<_> = seen.map(|(kind, number)| format!("{} {kind}", count(number)).red().bold()).collect();
    (!parts.is_empty()).then(|| line("faults", width, parts))
}

fn clients(snapshot: &Snapshot, width: usize) -> Line<'static> {
    let mut parts = vec![of(snapshot.connected, snapshot.connections, "connected")];
    if snapshot.closed > 0 {
        parts.push(format!("{} closed", count(snapshot.closed.into())).yellow().bold());
    }
    if snapshot.phase == "warming" {
        parts.push(format!("{} heard a test", count(snapshot.warm.into())).into());
    }
    line("clients", width, parts)
}

fn messages(snapshot: &Snapshot, width: usize) -> Line<'static> {
    let published = of(snapshot.published, snapshot.messages, "published");
    let under_way = format!("{} under way", count(snapshot.under_way)).into();
    let delivered = format!("{} delivered", count(snapshot.delivered)).into();
    line("messages", width, [published, under_way, delivered])
}

fn deliveries(snapshot: &Snapshot, history: &History, width: usize) -> Line<'static> {
    // The last whole second is steadier than the snapshot.
    let now = history.last().map_or(snapshot.per_second, |second| second.per_second.round() as u64);
    let now = format!("{:20}", format!("{} per second", count(now)));
    let columns = width.saturating_sub(LABEL + now.len() + GAP.len());
    let curve = curve(history, columns, |second| Some(second.per_second));
    line("deliveries", width, [now.into(), curve.cyan()])
}

fn last(times: Option<&Times>, width: usize) -> Line<'static> {
    let Some(times) = times.filter(|times| times.samples() > 0) else {
        let why = if times.is_some() { "no message is complete yet" } else { "not known yet" };
        return line("last receiver", width, [why.dim()]);
    };
    let figures = [("p50", times.at(0.5)), ("p99", times.at(0.99)), ("max", times.max())];
    line("last receiver", width, figures.map(|(name, time)| format!("{name} {}", nanos(time)).into()))
}

fn server(snapshot: &Snapshot, history: &History, width: usize) -> Line<'static> {
    let Some(now) = snapshot.server else {
        return line("server", width, ["not watched: --server-pid or --metrics".dim()]);
    };
    let cpu = history.last().and_then(|second| second.server).map_or(now.cpu, |server| server.cpu);
    let (cpu, memory) = (format!("{cpu:.2} cores"), format!("{:>7}", bytes(now.resident)));
    let columns = width.saturating_sub(LABEL + cpu.len() + memory.len() + 3 * GAP.len()) / 2;
    let cpu_curve = format!("{:columns$}", curve(history, columns, |second| Some(second.server?.cpu)));
    let memory_curve = curve(history, columns, |second| Some(second.server?.resident as f64));
    line("server", width, [cpu.into(), cpu_curve.magenta(), memory.into(), memory_curve.magenta()])
}

/// One bar per thread that reads, in the order of their numbers; the busiest of them; the one that publishes. What the
/// report would call a bottleneck stands out.
fn generator(snapshot: &Snapshot, width: usize) -> Line<'static> {
    let Some((publisher, readers)) = snapshot.threads.split_last() else {
        return line("generator", width, ["not known yet".dim()]);
    };
    let alarm = |busy: f64| if busy > BUSY_MAX { Style::new().red().bold() } else { Style::new() };
    let busiest = readers.iter().copied().fold(0.0, f64::max);
    let late = format!("{} late", nanos(snapshot.late));
    let parts = [
        format!("busiest {:.0} %", busiest * 100.0).set_style(alarm(busiest)),
        format!("publisher {:.0} %", publisher * 100.0).set_style(alarm(*publisher)),
        if snapshot.late > LAG_MIN { late.yellow().bold() } else { late.into() },
    ];
    let mut line = line("generator", width.saturating_sub(readers.len() + 1), parts);
    let bars = readers.iter().map(|share| rising(share.max(0.125)).to_string().set_style(alarm(*share)));
    line.spans.splice(1..1, bars.chain([" ".into()]));
    line
}

/// How far clients are behind, where there is no room for the pane.
fn behind_line(behind: &Behind, width: usize) -> Line<'static> {
    let classes = CLASSES.iter().zip(behind).filter(|(_, number)| **number > 0);
    let mut parts: Vec<_> =
        classes.map(|((class, colour), number)| format!("{class} {}", count((*number).into())).fg(*colour)).collect();
    if parts.is_empty() {
        parts.push("not known yet".dim());
    }
    line("behind", width, parts)
}

fn behind_pane(behind: &Behind, width: usize) -> Vec<Line<'static>> {
    let all: u32 = behind.iter().sum();
    let digits = count(all.into()).len();
    let columns = width.saturating_sub("≤ 1 s ".chars().count() + " ".len() + digits + " 100.0 %".len());
    let class = |(&(class, colour), &number): (&(&'static str, Color), &u32)| {
        let share = f64::from(number) / f64::from(all.max(1));
        let bar = format!("{:columns$}", length(share, columns)).fg(colour);
        let figures = format!(" {:>digits$} {:>5.1} %", count(number.into()), share * 100.0);
        let figures = match number {
            _ if all == 0 => "".into(),
            0 => figures.dim(),
            _ => figures.into(),
        };
        Line::from(vec![format!("{class} ").dim(), bar, figures])
    };
    let caption = Line::from("how far clients are behind".dim());
    std::iter::once(caption).chain(CLASSES.iter().zip(behind).map(class)).collect()
}

/// A histogram over powers of ten: after which time how many messages had reached their last receiver.
fn last_pane(times: Option<&Times>, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from("delays of last receivers".dim())];
    let Some(times) = times.filter(|times| times.samples() > 0) else { return lines };
    let (first, end) = decades(times);
    let columns_per_decade = width as f64 / f64::from(end - first);
    let bound = |column: usize| (1e6 * 10f64.powf(f64::from(first) + column as f64 / columns_per_decade)) as Nanos;
    let bounds: Vec<_> = (1..width).map(bound).collect();
    let values: Vec<_> = times.classes(&bounds).into_iter().map(|count| (count > 0).then_some(count as f64)).collect();
    lines.extend(bars(&values, usize::from(PANES) - 2).into_iter().map(|row| Line::from(row.green())));
    lines.push(Line::from(axis(first, end, width).dim()));
    lines
}

/// The powers of ten, in milliseconds, between which all times are.
fn decades(times: &Times) -> (i32, i32) {
    let log = |time: Nanos| (time.max(1) as f64 / 1e6).log10();
    let first = (log(times.at(0.0)).floor() as i32).max(DECADE_FIRST);
    (first, (log(times.max()).ceil() as i32).max(first + DECADES_MIN))
}

/// `╵1 ms      ╵10 ms     ╵100 ms`, and only the marks that have room.
fn axis(first: i32, end: i32, width: usize) -> String {
    let mut text = String::new();
    for decade in first..end {
        let at = (f64::from(decade - first) * width as f64 / f64::from(end - first)).round() as usize;
        let (power, unit) = if decade < 3 { (decade, "ms") } else { (decade - 3, "s") };
        let mark = format!("╵{} {unit}", 10f64.powi(power));
        let used = text.chars().count();
        if used < at.max(1) && at + mark.chars().count() <= width {
            text += &format!("{:1$}{mark}", "", at - used);
        }
    }
    text
}

/// A label and its figures; those that would be cut off are left out, because half a number is a wrong one.
fn line(label: &str, width: usize, parts: impl IntoIterator<Item = Span<'static>>) -> Line<'static> {
    let mut line = Line::from(vec![format!("{label:LABEL$}").dim()]);
    for part in parts {
        let gap = if line.spans.len() > 1 { GAP } else { "" };
        if line.width() + gap.len() + part.width() > width {
            break;
        }
        line.spans.extend([gap.into(), part]);
    }
    line
}

fn of(number: u32, all: u32, what: &str) -> Span<'static> {
    format!("{} of {} {what}", count(number.into()), count(all.into())).into()
}

fn curve(history: &History, columns: usize, figure: impl Fn(&Second) -> Option<f64>) -> String {
    bars(&history.curve(columns, figure), 1).concat()
}

/// One column per value, the highest of them `rows` high; the rows from the top. What is known is seen, even if zero.
fn bars(values: &[Option<f64>], rows: usize) -> Vec<String> {
    let top = values.iter().flatten().copied().fold(0.0, f64::max);
    let cell = |value: f64, below: usize| match (value / top * rows as f64, below) {
        (height, 0) => rising(height.max(0.125)),
        (height, _) => rising(height - below as f64),
    };
    let row = |below: usize| values.iter().map(|value| value.map_or(' ', |value| cell(value, below))).collect();
    (0..rows).rev().map(row).collect()
}

/// One character, filled from below.
fn rising(share: f64) -> char {
    [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][eighths(share.clamp(0.0, 1.0))]
}

/// A bar from the left, of `columns` for all. What is not zero is seen.
fn length(share: f64, columns: usize) -> String {
    let filled = eighths(share * columns as f64).max(usize::from(share > 0.0));
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][filled % 8];
    "█".repeat(filled / 8) + rest
}

fn eighths(length: f64) -> usize {
    (length * 8.0).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::ServerNow;

    const SECOND: Nanos = 1_000_000_000;
    const ROOMY: u16 = 24;

    /// The rows as text, without the blanks at their ends.
    fn rows(snapshot: &Snapshot, history: &History, width: u16, height: u16) -> Vec<String> {
        let buffer = draw(snapshot, history, Size { width, height });
        let row = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect::<String>();
        buffer.content().chunks(buffer.area.width.into()).map(|cells| row(cells).trim_end().to_owned()).collect()
    }

    fn connecting() -> Snapshot {
        Snapshot {
            at: 4 * SECOND,
            phase: "connecting",
            progress: Some(0.25),
            connections: 2000,
            connected: 500,
            messages: 600,
            ..Snapshot::default()
        }
    }

    fn measuring() -> Snapshot {
        let mut last = Times::default();
        (1..=300).for_each(|number| last.record(2_000_000 + 20_000 * number));
        last.record(340_000_000);
        Snapshot {
            at: 37 * SECOND,
            phase: "measuring",
            progress: Some(0.617),
            connected: 2000,
            published: 370,
            delivered: 738_766,
            under_way: 1234,
            per_second: 20_012,
            behind: [1998, 2, 0, 0, 0, 0],
            last: Some(last),
            server: Some(ServerNow { cpu: 1.43, resident: 123 << 20 }),
            threads: vec![0.2, 0.31, 0.01],
            late: 102_000,
            ..connecting()
        }
    }

    fn minute() -> History {
        let mut history = History::default();
        for number in 0..=37 {
            let per_second = 20_000 + (number * 7919 % 13) * 100;
            let server = Some(ServerNow { cpu: 1.0 + number as f64 / 50.0, resident: (100 + number) << 20 });
            history.note(&Snapshot { at: number * SECOND, per_second, server, ..Snapshot::default() });
        }
        history
    }

    /// Two in a hundred clients keep up, the others do not, and the server makes mistakes.
    fn behind() -> Snapshot {
        Snapshot {
            behind: [40, 60, 400, 900, 500, 100],
            doubled: 3,
            stray: 1234,
            closed: 7,
            threads: vec![0.2, 0.96, 0.01],
            late: 6_000_000,
            ..measuring()
        }
    }

    #[test]
    fn a_run_that_connects_shows_what_is_known() {
        let rows = rows(&connecting(), &History::default(), 80, ROOMY);
        assert_eq!(rows.len(), 15);
        assert_eq!(rows[0], format!("connecting     {}{}  25 %    4 s", "━".repeat(13), "─".repeat(39)));
        assert_eq!(rows[1], "clients        500 of 2,000 connected");
        assert_eq!(rows[4], "last receiver  not known yet");
        assert_eq!(rows[5], "server         not watched: --server-pid or --metrics");
        assert_eq!(rows[6], "generator      not known yet");
        assert_eq!(rows[9], "≤ 1 s", "no figure where none is known");
    }

    #[test]
    fn a_run_that_measures_shows_its_curves() {
        let rows = rows(&measuring(), &minute(), 80, ROOMY);
        assert_eq!(
            rows,
            [
                "measuring      ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━────────────────────  61 %   37 s",
                "clients        2,000 of 2,000 connected",
                "messages       370 of 600 published  1,234 under way  738,766 delivered",
                "deliveries     20,700 per second     ███████████████████",
                "last receiver  p50 5.02 ms  p99 7.96 ms  max 340 ms",
                "server         1.72 cores  ▅▅▅▆▆▆▆▇▇▇███           123 MB  ▆▆▆▆▇▇▇▇▇████",
                "generator      ▂▂ busiest 31 %  publisher 1 %  0.102 ms late",
                "",
                "how far clients are behind                   delays of last receivers",
                "≤ 1 s ██████████████████████ 1,998  99.9 %           ▁█",
                "≤ 2 s ▏                          2   0.1 %          ▃██▂",
                "≤ 3 s                            0   0.0 %        ▂▇████",
                "≤ 5 s                            0   0.0 %       ▇██████",
                "≤10 s                            0   0.0 %      ▆███████                  ▁",
                ">10 s                            0   0.0 %   ╵1 ms       ╵10 ms     ╵100 ms",
            ]
        );
    }

    #[test]
    fn clients_behind_are_a_shape() {
        let rows = rows(&behind(), &minute(), 60, ROOMY);
        assert_eq!(
            rows[10..],
            [
                "≤ 1 s ▎               40   2.0 %         █",
                "≤ 2 s ▍               60   3.0 %        ▆█▃",
                "≤ 3 s ██▍            400  20.0 %      ▁████",
                "≤ 5 s █████▍         900  45.0 %      █████",
                "≤10 s ███            500  25.0 %     ▇█████             ▁",
                ">10 s ▋              100   5.0 %   ╵1 ms   ╵10 ms   ╵100 ms",
            ]
        );
    }

    #[test]
    fn faults_and_a_slow_generator_are_red() {
        let red = |snapshot: &Snapshot, row: usize| {
            let buffer = draw(snapshot, &History::default(), Size { width: 80, height: ROOMY });
            let cells = buffer.content().chunks(80).nth(row).expect("a row");
            cells.iter().filter(|cell| cell.fg == Color::Red).map(|cell| cell.symbol()).collect::<String>()
        };
        assert_eq!(red(&behind(), 1), "3 doubled1,234 stray");
        assert_eq!(red(&behind(), 7), "█busiest 96 %");
        assert_eq!(red(&measuring(), 6), "");
        assert!(rows(&behind(), &minute(), 80, ROOMY)[2].ends_with("2,000 of 2,000 connected  7 closed"));
        assert!(!rows(&measuring(), &minute(), 80, ROOMY).concat().contains("faults"));
    }

    #[test]
    fn a_low_terminal_gets_the_first_lines_and_one_of_the_pane() {
        let low = rows(&behind(), &minute(), 80, 12);
        assert_eq!(low.len(), 9);
        assert_eq!(low[6], "behind         ≤ 1 s 40  ≤ 2 s 60  ≤ 3 s 400  ≤ 5 s 900  ≤10 s 500  >10 s 100");
        let lower = rows(&behind(), &minute(), 80, 4);
        assert_eq!((lower.len(), &lower[1][..15]), (3, "faults         "));
        assert!(rows(&behind(), &minute(), 80, 1).is_empty(), "the row of the cursor");
    }

    #[test]
    fn any_size_is_drawn_and_no_number_is_cut() {
        for snapshot in [Snapshot::default(), connecting(), measuring(), behind()] {
            for (width, height) in (1..=200).step_by(3).flat_map(|width| (1..=20).map(move |height| (width, height))) {
                let rows = rows(&snapshot, &minute(), width, height);
                assert!(rows.len() < usize::from(height));
                let messages = rows.iter().find(|row| row.starts_with("messages")).map_or("", |row| row.as_str());
                let figures = messages.split_whitespace().last().unwrap_or_default();
                assert!(["", "messages", "published", "way", "delivered"].contains(&figures), "{width}: {messages}");
            }
        }
    }

    #[test]
    fn marks_of_the_axis_do_not_overlap() {
        assert_eq!(axis(-1, 2, 33), "╵0.1 ms    ╵1 ms      ╵10 ms");
        assert_eq!(axis(2, 5, 21), "╵100 ms       ╵10 s", "1 s would touch what is before it");
        assert_eq!(axis(-2, 5, 25), "╵0.01 ms   ╵10 ms ╵1 s");
    }

    #[test]
    fn what_is_not_zero_is_seen() {
        assert_eq!(length(0.0001, 10), "▏");
        assert_eq!((length(0.0, 10), length(1.0, 3), length(0.5, 3)), ("".into(), "███".into(), "█▌".into()));
        assert_eq!(bars(&[Some(0.0), None, Some(1.0), Some(1000.0)], 2), ["   █", "▁ ▁█"]);
        assert_eq!(bars(&[Some(0.0), Some(0.0)], 1), ["▁▁"]);
    }
}
