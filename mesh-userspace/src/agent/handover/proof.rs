//! Who says that it is this node's agent proves it: it makes a folder below bpffs, named as the other end
//! asked. Whoever can do that could replace the programs anyway; a process that merely reaches the name in
//! the host's network namespace (a pod with `hostNetwork`) cannot.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{HandoverError, talk};

/// A folder that is there as long as this lives.
#[derive(Debug)]
pub struct Proof(PathBuf);

impl Proof {
    /// Answers the other end's word.
    pub fn make(bpffs: &Path, word: &str) -> Result<Self, HandoverError> {
        if !is_word(word) {
            return Err(HandoverError::Stranger("asks for an odd proof"));
        }
        let path = place(bpffs, word);
        let zerohop = path.parent().unwrap_or(bpffs);
        fs::create_dir_all(zerohop).map_err(talk("making a folder below bpffs"))?;
        fs::create_dir(&path).map_err(talk("making a folder below bpffs"))?;
        Ok(Self(path))
    }

    /// Whether the other end has answered this end's word.
    pub fn is_there(bpffs: &Path, word: &str) -> bool {
        place(bpffs, word).is_dir()
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A word that nobody can have foreseen.
pub fn new_word() -> io::Result<String> {
    let mut bytes = [0u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// What goes into a path must not lead out of it.
fn is_word(word: &str) -> bool {
    word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn place(bpffs: &Path, word: &str) -> PathBuf {
    bpffs.join("zerohop").join(format!("takeover_{word}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_there_while_it_is_needed_and_stays_in_its_place() {
        let folder = std::env::temp_dir().join(format!("zerohop-proof-{}", std::process::id()));
        let word = new_word().expect("random");
        assert_ne!(word, new_word().expect("random"));
        assert!(!Proof::is_there(&folder, &word));
        let proof = Proof::make(&folder, &word).expect("a folder");
        assert!(Proof::is_there(&folder, &word));
        assert!(Proof::make(&folder, &word).is_err());
        drop(proof);
        assert!(!Proof::is_there(&folder, &word));
        let outside = Proof::make(&folder, "../../../../../../tmp/elsewhere");
        assert!(matches!(outside, Err(HandoverError::Stranger(_))));
        fs::remove_dir_all(&folder).expect("cleaning up");
    }
}
