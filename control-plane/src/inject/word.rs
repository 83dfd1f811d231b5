//! The random word at the end of a hook's path.

/// As many bytes as nobody can guess.
const LENGTH: usize = 16;

/// Letters and digits, drawn anew for each pod.
pub fn random_word() -> String {
    let mut bytes = [0; LENGTH];
    // The system's generator; a process that cannot draw has no keys either.
    aws_lc_rs::rand::fill(&mut bytes).expect("the system draws random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
