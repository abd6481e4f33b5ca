//! The access log: lines go through a bounded queue to a thread of its own, so that a slow disk or
//! terminal never delays a request. What does not fit is dropped and counted.

use std::{
    fmt::Write as _,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::SystemTime,
};

use super::record::Entry;

/// Lines that may wait for the writer.
const QUEUE: usize = 8192;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One line for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The sending half; clones share the queue.
#[derive(Debug, Clone)]
pub struct AccessLog {
    format: AccessLogFormat,
    queue: SyncSender<String>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the writer's thread; it ends when the last clone is gone and all is written.
    pub fn start(
        format: AccessLogFormat,
        output: impl Write + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_lines(&lines, output))?;
        Ok(Self {
            format,
            queue,
            dropped: Arc::default(),
        })
    }

    /// Lines that were dropped because the writer was behind, or gone.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Queues one line; never waits.
    pub fn log(&self, entry: &Entry<'_>) {
        let line = match self.format {
            AccessLogFormat::Text => text(entry),
            AccessLogFormat::Json => json(entry),
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(line)
        {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

fn write_lines(lines: &Receiver<String>, mut output: impl Write) {
    // A reader that went away (a closed pipe) must not end the process, nor fill the queue.
    while let Ok(line) = lines.recv() {
        let _ = output.write_all(line.as_bytes());
        for line in lines.try_iter().take(QUEUE) {
            let _ = output.write_all(line.as_bytes());
        }
        let _ = output.flush();
    }
}

fn text(entry: &Entry<'_>) -> String {
    let mut line = String::with_capacity(256);
    let started = timestamp(entry.started_at);
    let _ = write!(line, "[{started}] \"");
    match &entry.request {
        Some(request) => {
            let _ = write!(
                line,
                "{} {} {}",
                request.method, request.path, request.protocol
            );
        }
        None => line.push_str("- - TCP"),
    }
    let _ = write!(
        line,
        "\" {} {} {} {} {} \"{}\" {}->{} {} route={} attempts={}",
        entry.code,
        entry.flags,
        entry.received,
        entry.sent,
        entry.duration.as_millis(),
        entry.request.as_ref().map_or("-", |r| r.authority),
        entry.source,
        entry.destination,
        Dash(entry.upstream),
        entry.route.as_deref().unwrap_or("-"),
        entry.attempts,
    );
    line.push('\n');
    line
}

fn json(entry: &Entry<'_>) -> String {
    let mut object = serde_json::json!({
        "start_time": timestamp(entry.started_at),
        "response_code": entry.code,
        "response_flags": entry.flags.to_string(),
        "bytes_received": entry.received,
        "bytes_sent": entry.sent,
        "duration": u64::try_from(entry.duration.as_millis()).unwrap_or(u64::MAX),
        "source": entry.source.to_string(),
        "destination": entry.destination,
        "upstream_host": entry.upstream.map(|a| a.to_string()),
        "route_name": entry.route,
        "attempts": entry.attempts,
    });
    if let (Some(request), Some(fields)) = (&entry.request, object.as_object_mut()) {
        fields.insert("method".into(), request.method.into());
        fields.insert("path".into(), request.path.into());
        fields.insert("protocol".into(), request.protocol.into());
        fields.insert("authority".into(), request.authority.into());
    }
    let mut line = object.to_string();
    line.push('\n');
    line
}

struct Dash<T>(Option<T>);

impl<T: std::fmt::Display> std::fmt::Display for Dash<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// RFC 3339 in UTC with milliseconds (the civil calendar from days, by Howard Hinnant's method).
pub(crate) fn timestamp(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339() {
        let at = |seconds, ms| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(ms)
        };
        assert_eq!(timestamp(at(0, 0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(at(951_827_696, 7)), "2000-02-29T12:34:56.007Z");
        assert_eq!(
            timestamp(at(1_767_225_599, 999)),
            "2025-12-31T23:59:59.999Z"
        );
    }
}
