//! CRC-32C (Castagnoli), as RocksDB computes it over log records and whole table files.

/// Tables for eight bytes at a time: `TABLES[n][b]` is the checksum of byte `b` followed by `n`
/// zeros.
static TABLES: [[u32; 256]; 8] = tables();

const POLYNOMIAL: u32 = 0x82F6_3B78;

#[expect(clippy::as_conversions, reason = "indexes below 256, in a constant")]
#[expect(clippy::cast_possible_truncation, reason = "indexes below 256, in a constant")]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// A checksum under way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Crc(u32);

impl Crc {
    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let mut crc = !self.0;
        let mut eights = bytes.chunks_exact(8);
        for eight in &mut eights {
            let first = crc.to_le_bytes();
            let mut next = 0;
            for (place, byte) in eight.iter().enumerate() {
                let byte = if place < 4 { byte ^ first[place] } else { *byte };
                next ^= TABLES[7 - place][usize::from(byte)];
            }
            crc = next;
        }
        for byte in eights.remainder() {
            let [low, ..] = crc.to_le_bytes();
            crc = (crc >> 8) ^ TABLES[0][usize::from(low ^ byte)];
        }
        self.0 = !crc;
    }

    /// Returns the checksum of all bytes added.
    pub(crate) const fn value(self) -> u32 {
        self.0
    }
}

/// Returns the checksum that a log record carries, which is stored rotated and shifted so that
/// checksums of checksums do no harm.
pub(crate) const fn unmasked(stored: u32) -> u32 {
    stored.wrapping_sub(0xA282_EAD8).rotate_left(15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u32 {
        let mut crc = Crc::default();
        crc.add(bytes);
        crc.value()
    }

    /// RFC 3720, appendix B.4.
    #[test]
    fn vectors_of_iscsi_hold() {
        assert_eq!(of(&[0; 32]), 0x8A91_36AA);
        assert_eq!(of(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(of(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn pieces_of_any_length_add_up() {
        let bytes: Vec<u8> = (0..=255).collect();
        for cut in 0..bytes.len() {
            let mut crc = Crc::default();
            crc.add(&bytes[..cut]);
            crc.add(&bytes[cut..]);
            assert_eq!(crc.value(), of(&bytes), "cut at {cut}");
        }
    }
}
