//! Decodes an image, reads all of it, and shows how long each part took: `measure IMAGE RAW [THREADS]`. RAW is written.

#![allow(clippy::print_stdout, reason = "a program for people")]

use aule_image::{DecodedImage, EntryKind, Input, Limits, ReadAt, Window, detect, open, read_partitions};
use aule_tree::Hasher;
use std::{error::Error, fs::File, sync::Arc, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(input), Some(raw)) = (arguments.next(), arguments.next()) else {
        return Err("usage: measure IMAGE RAW [THREADS]".into());
    };
    let threads = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let input = File::open(input)?;
    let mut head = [0; 6];
    input.read_at(0, &mut head)?;
    let output = File::options().read(true).write(true).create(true).truncate(true).open(raw)?;
    let start = Instant::now();
    let input = Input::Seekable(Arc::new(input));
    let image = Arc::new(DecodedImage::start(input, detect(&head), output, threads, Limits::default())?);
    let table = read_partitions(&image)?;
    println!("partition table {:?}", start.elapsed());
    let summary = image.join()?;
    println!("decoded {summary:?} {:?}", start.elapsed());
    for partition in table.partitions {
        let start = Instant::now();
        let window = Window::new(image.clone(), partition.start, partition.length);
        let filesystem = open(Arc::new(window))?;
        let entries = filesystem.entries()?;
        let label = String::from_utf8_lossy(filesystem.label());
        println!(
            "{} {label} {}: {} entries in {:?}",
            partition.uuid,
            filesystem.kind(),
            entries.len(),
            start.elapsed()
        );
        let start = Instant::now();
        let (mut bytes, mut sparse) = (0, 0);
        let mut buffer = vec![0; 1 << 20];
        for entry in &entries {
            let EntryKind::File { handle, size, holes } = &entry.what else { continue };
            sparse += u32::from(holes.is_some());
            bytes += size;
            for offset in (0..*size).step_by(buffer.len()) {
                let length = (size - offset).min(buffer.len() as u64) as usize;
                filesystem.read(handle, offset, buffer.get_mut(..length).unwrap_or_default())?;
            }
        }
        println!("  {bytes} bytes, {sparse} sparse files, read in {:?}", start.elapsed());
        let start = Instant::now();
        let mut hasher = Hasher::new();
        for entry in &entries {
            let EntryKind::File { handle, size, .. } = &entry.what else { continue };
            for offset in (0..*size).step_by(buffer.len()) {
                let piece = buffer.get_mut(..(size - offset).min(1 << 20) as usize).unwrap_or_default();
                filesystem.read(handle, offset, piece)?;
                hasher.update(piece);
            }
        }
        println!("  {} in {:?}", hasher.finish(), start.elapsed());
    }
    Ok(())
}
