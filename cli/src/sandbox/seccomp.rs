//! Keeps a sandboxed command from typing into the terminal that it shares with the shell outside: with `TIOCSTI`, or
//! `TIOCLINUX` on a console, what it "types" is run there. A session of its own would do as well, and take job control
//! away. Everything else that the kernel offers is left to namespaces and missing rights.

/// Where the kernel's `seccomp_data` (linux/seccomp.h) has the number of the call, its machine and its second argument's
/// lower half, which is what an `ioctl` asks for.
const CALL_AT: u32 = 0;
const MACHINE_AT: u32 = 4;
const REQUEST_AT: u32 = 24;

/// `AUDIT_ARCH_*` of linux/audit.h, and the number of `ioctl` there, with the 32-bit relatives that such a kernel runs too.
const MACHINES: [(u32, u32); 5] = [
    (0xc000_003e, 16), // x86_64
    (0x4000_0003, 54), // i386
    (0xc000_00b7, 29), // aarch64
    (0x4000_0028, 54), // arm
    (0xc000_00f3, 29), // riscv64
];
/// The second numbering of x86_64 (x32), in which every call has another number.
const X32: u32 = 0x4000_0000;
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;

const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const ANSWER: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
/// `SECCOMP_RET_ERRNO` with `EPERM`.
const REFUSE: u32 = 0x0005_0001;

/// Whether this machine is one that the filter knows.
pub(super) const IS_KNOWN: bool =
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"));

/// One step of the filter: what to do, how many steps to skip if it holds and if not, and with which value.
type Step = (u16, u8, u8, u32);

/// The filter, as the kernel's `struct sock_filter` one after the other.
pub(super) fn filter() -> Vec<u8> {
    let bytes = |(code, yes, no, value): Step| {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([yes, no]);
        bytes.extend(value.to_ne_bytes());
        bytes
    };
    steps().into_iter().flat_map(bytes).collect()
}

fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (index, (machine, ioctl)) in MACHINES.into_iter().enumerate() {
        // Five steps a machine, and after the last one those that all share.
        let later = u8::try_from((MACHINES.len() - 1 - index) * 5).unwrap_or(u8::MAX);
        steps.extend([
            (LOAD, 0, 0, MACHINE_AT),
            (IF_EQUAL, 0, 3, machine),
            (LOAD, 0, 0, CALL_AT),
            (IF_AT_LEAST, later + 6, 0, X32),
            (IF_EQUAL, later + 1, later + 4, ioctl),
        ]);
    }
    steps.extend([
        (ANSWER, 0, 0, REFUSE), // a machine that nobody knows
        (LOAD, 0, 0, REQUEST_AT),
        (IF_EQUAL, 2, 0, TIOCSTI),
        (IF_EQUAL, 1, 0, TIOCLINUX),
        (ANSWER, 0, 0, ALLOW),
        (ANSWER, 0, 0, REFUSE),
    ]);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn answer(machine: u32, call: u32, request: u32) -> u32 {
        let (steps, mut at, mut loaded) = (steps(), 0, 0);
        for _ in 0..steps.len() {
            let (code, yes, no, value) = steps[at];
            let holds = match code {
                ANSWER => return value,
                LOAD => {
                    loaded = match value {
                        CALL_AT => call,
                        MACHINE_AT => machine,
                        REQUEST_AT => request,
                        other => panic!("nothing is at {other}"),
                    };
                    true
                }
                IF_EQUAL => loaded == value,
                IF_AT_LEAST => loaded >= value,
                other => panic!("no step is {other}"),
            };
            at += 1 + usize::from(if code == LOAD {
                0
            } else if holds {
                yes
            } else {
                no
            });
        }
        panic!("it never ends");
    }

    #[test]
    fn typing_into_the_terminal_is_refused_and_nothing_else() {
        const TCGETS: u32 = 0x5401;
        for (machine, ioctl) in MACHINES {
            assert_eq!(answer(machine, ioctl, TIOCSTI), REFUSE, "{machine:x}");
            assert_eq!(answer(machine, ioctl, TIOCLINUX), REFUSE, "{machine:x}");
            assert_eq!(answer(machine, ioctl, TCGETS), ALLOW, "{machine:x}");
            assert_eq!(answer(machine, ioctl + 1, TIOCSTI), ALLOW, "{machine:x}");
            assert_eq!(answer(machine, 0, 0), ALLOW, "{machine:x}");
            assert_eq!(answer(machine, X32 + 514, TIOCSTI), REFUSE, "{machine:x}");
        }
        assert_eq!(answer(0xc000_0015, 54, TCGETS), REFUSE);
        assert_eq!(filter().len(), steps().len() * 8);
    }
}
