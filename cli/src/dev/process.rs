//! What the standard library cannot say about a child process: that it ends with us, and SIGTERM.
//!
//! The only unsafe code of this crate.

use tokio::process::{Child, Command};

/// Lets the system kill the child when the thread that starts it ends, for whatever reason; on
/// Linux only, elsewhere a child outlives a parent that was killed.
#[allow(unsafe_code, reason = "the parent-death signal can be set in the child only, between fork and exec")]
pub(super) fn end_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        let tie = move || {
            // SAFETY: prctl and getppid are async-signal-safe, take no pointers here, and touch nothing but the
            // child's own process attributes.
            let (failed, now) =
                unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) != 0, libc::getppid()) };
            if failed {
                return Err(std::io::Error::last_os_error());
            }
            // The parent was gone before the signal was set: it will not be sent.
            if u32::try_from(now).ok() != Some(parent) {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        };
        // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe calls are
        // allowed; it makes no others, allocates nothing and takes no lock.
        unsafe { command.pre_exec(tie) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// Asks the child to end.
#[allow(unsafe_code, reason = "the standard library sends no signal but SIGKILL")]
pub(super) fn terminate(child: &Child) {
    // The id is gone once the child has been waited for, so it cannot be another process's by now.
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // SAFETY: kill takes no pointers; the worst outcome is an error, which means that the child has ended.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}
