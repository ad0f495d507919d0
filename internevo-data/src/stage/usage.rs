//! What this process used so far and what is left, as Linux tells it. Elsewhere the answer is zero or none, and reports say so.

/// Kernel ticks per second in `/proc/self/stat`: a constant of Linux's interface to user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of the process (user and system, all threads).
pub fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command's name, in parentheses, may hold spaces; user and system time are fields 14 and 15.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS_PER_SECOND
}

/// Largest resident memory so far, bytes.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// What Linux could give a process now, bytes.
pub fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
