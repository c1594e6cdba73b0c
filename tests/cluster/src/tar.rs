//! As much of the tar format as an image needs: directories, files and symbolic links, owned by root, without times, so
//! that equal contents are equal bytes.

const BLOCK: usize = 512;

/// An archive in the making.
#[derive(Debug, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub(crate) fn directory(&mut self, path: &str, mode: u32) {
        self.entry(path, mode, b'5', "", &[]);
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entry(path, mode, b'0', "", contents);
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, 0o777, b'2', target, &[]);
    }

    /// Names longer than 100 bytes would be cut; ours are known and short.
    fn entry(&mut self, path: &str, mode: u32, kind: u8, target: &str, contents: &[u8]) {
        let mut header = Vec::with_capacity(BLOCK);
        let mut field = |text: &str, width: usize| {
            header.extend(text.bytes().chain(std::iter::repeat(0)).take(width));
        };
        field(path, 100);
        field(&format!("{mode:07o}"), 8);
        field("0000000", 8);
        field("0000000", 8);
        field(&format!("{:011o}", contents.len()), 12);
        field("00000000000", 12);
        // The checksum is over a header whose checksum is spaces.
        field("        ", 8);
        header.push(kind);
        let mut field = |text: &str, width: usize| {
            header.extend(text.bytes().chain(std::iter::repeat(0)).take(width));
        };
        field(target, 100);
        field("ustar\x0000", 8);
        header.resize(BLOCK, 0);
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        let checksum = format!("{sum:06o}\0 ");
        for (byte, value) in header.iter_mut().skip(148).zip(checksum.bytes()) {
            *byte = value;
        }
        self.bytes.extend(header);
        self.bytes.extend(contents);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::run_with_input;
    use std::process::Command;

    #[test]
    fn the_tar_program_reads_what_we_write() -> anyhow::Result<()> {
        let mut tar = Tar::default();
        tar.directory("bin/", 0o755);
        tar.file("bin/tool", 0o755, &[7; 700]);
        tar.symlink("bin/sh", "tool");
        let listed = run_with_input(Command::new("tar").args(["-tvf", "-"]), &tar.finish())?;
        let listed = String::from_utf8(listed.stdout)?;
        for part in ["drwxr-xr-x", "-rwxr-xr-x", "700", "bin/sh -> tool"] {
            assert!(listed.contains(part), "{listed}");
        }
        Ok(())
    }
}
