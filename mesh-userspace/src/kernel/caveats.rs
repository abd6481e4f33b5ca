//! Names of what was seen of a socket before its first byte that redirection could not honour.

use mesh_common::{
    caveat,
    connection::{Connection, Plain},
};

use super::connections;

/// Why a direction is plain TCP, one line for people: with the option's name where one is the reason.
pub fn why(connection: &Connection) -> &'static str {
    const OPTIONS: [(u32, &str); 8] = [
        (
            caveat::RCVLOWAT,
            "an option redirection could not honour: SO_RCVLOWAT",
        ),
        (
            caveat::INQ,
            "an option redirection could not honour: TCP_INQ",
        ),
        (
            caveat::TIMESTAMPS,
            "an option redirection could not honour: SO_TIMESTAMP",
        ),
        (
            caveat::PEEK_OFF,
            "an option redirection could not honour: SO_PEEK_OFF",
        ),
        (
            caveat::ZEROCOPY,
            "an option redirection could not honour: SO_ZEROCOPY",
        ),
        (
            caveat::FILTER,
            "an option redirection could not honour: SO_ATTACH_FILTER",
        ),
        (
            caveat::PACING,
            "an option redirection could not honour: SO_MAX_PACING_RATE",
        ),
        (
            caveat::ULP,
            "an option redirection could not honour: TCP_ULP",
        ),
    ];
    if connection.plain == Plain::Option as u32
        && let Some((_, line)) = OPTIONS
            .iter()
            .find(|(bit, _)| connection.hazards & bit != 0)
    {
        return line;
    }
    connections::why(connection.plain)
}

/// Names of the bits.
pub fn names(bits: u32) -> Vec<&'static str> {
    let set = caveat::NAMES.iter().filter(|(bit, _)| bits & bit != 0);
    set.map(|(_, name)| *name).collect()
}
