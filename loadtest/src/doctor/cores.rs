//! Cores: how many there are, who shares them, and whether they run at full speed.

use super::{Check, System, Wanted};

pub fn checks(wanted: &Wanted, system: &System) -> Vec<Check> {
    vec![number(wanted, system), governor(system)]
}

/// On a core shared with the server, deliveries wait until the server has sent to everyone.
fn number(wanted: &Wanted, system: &System) -> Check {
    let name = "cores";
    match (system.cores, wanted.shared) {
        (cores, false) => Check::ok(name, format!("{cores}, for loadtest alone")),
        (1, true) => Check::warning(
            name,
            "1 for the server and loadtest together: delays will be those of both".to_owned(),
            "run loadtest on another machine, or read its counts only".to_owned(),
        ),
        (cores, true) => {
            Check::ok(name, format!("{cores} for the server and loadtest together; taskset -c gives each its own"))
        }
    }
}

fn governor(system: &System) -> Check {
    let name = "frequency";
    let path = |core: usize| format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
    let mut governors = Vec::new();
    while let Some(text) = system.text(&path(governors.len())) {
        governors.push(text.trim().to_owned());
    }
    let Some(first) = governors.first() else { return Check::hidden(name, "the cores' scaling_governor") };
    if governors.iter().any(|governor| governor == "powersave") {
        return Check::warning(
            name,
            "the governor is powersave: the first messages after a pause are slower".to_owned(),
            "echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor, as root".to_owned(),
        );
    }
    Check::ok(name, format!("the governor is {first}"))
}

#[cfg(test)]
mod tests {
    use super::super::State::{Ok, Skipped, Warning};
    use super::super::system::made_up::MadeUp;
    use super::super::tests::{elsewhere, expect, on_loopback};
    use super::*;

    #[test]
    fn one_core_for_two_is_little() {
        let machine = |cores| MadeUp::new(&[]).with_cores(cores);
        expect(
            &checks(&on_loopback(1), &machine(4)),
            "cores",
            Ok,
            "4 for the server and loadtest together; taskset -c",
        );
        expect(
            &checks(&on_loopback(1), &machine(1)),
            "cores",
            Warning,
            "delays will be those of both; run loadtest on",
        );
        expect(&checks(&elsewhere(1), &machine(1)), "cores", Ok, "1, for loadtest alone");
    }

    #[test]
    fn governors() {
        let file = |core: usize| format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
        let machine = |governors: &[&str]| {
            let files: Vec<_> = governors.iter().enumerate().map(|(core, text)| (file(core), *text)).collect();
            MadeUp::new(&files.iter().map(|(path, text)| (path.as_str(), *text)).collect::<Vec<_>>())
        };
        let wanted = on_loopback(1);
        expect(&checks(&wanted, &machine(&["performance\n"; 2])), "frequency", Ok, "the governor is performance");
        let words = "echo performance | tee /sys";
        expect(&checks(&wanted, &machine(&["performance\n", "powersave\n"])), "frequency", Warning, words);
        expect(&checks(&wanted, &machine(&[])), "frequency", Skipped, "not readable here");
    }
}
