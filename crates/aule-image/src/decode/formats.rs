//! The decoders: xz, zstd, gzip, zip and plain copying.

use super::{DecodeError, Limits, Shared, source::Source, sparse::Sink};
use crate::{Cursor, ReadAt};
use aule_tree::Digest;
use liblzma::stream::{Action, Error as XzError, MtStreamBuilder, Status, Stream};
use std::{io, sync::Arc};

pub(super) fn raw(source: &mut Source, sink: &mut Sink) -> Result<(), DecodeError> {
    // Source never passes a decoder's error on: any error is its own.
    match sink.copy_from(source)? {
        Ok(()) => Ok(()),
        Err(error) => Err(decoder_error("raw", error, source)),
    }
}

/// A file of one or more streams with padding between (The .xz File Format 1.2, section 2.2).
pub(super) fn xz(source: &mut Source, sink: &mut Sink, threads: usize, limits: Limits) -> Result<(), DecodeError> {
    const FORMAT: &str = "xz";
    loop {
        xz_stream(source, sink, threads, limits)?;
        let mut padding = 0u64;
        loop {
            let bytes = source.fill()?;
            let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
            let (at_end, done) = (bytes.is_empty(), zeros < bytes.len());
            padding += zeros as u64;
            source.advance(zeros);
            if at_end || done {
                if !padding.is_multiple_of(4) {
                    let reason = format!("{padding} zero bytes after a stream, not a multiple of four");
                    return Err(DecodeError::Corrupt { format: FORMAT, position: source.position(), reason });
                }
                if at_end {
                    return Ok(());
                }
                break;
            }
        }
    }
}

fn xz_stream(source: &mut Source, sink: &mut Sink, threads: usize, limits: Limits) -> Result<(), DecodeError> {
    const FORMAT: &str = "xz";
    let wrong = |error: XzError, position: u64| {
        let corrupt = |reason: &str| DecodeError::Corrupt { format: FORMAT, position, reason: reason.into() };
        let unsupported = |reason: String| DecodeError::Unsupported { format: FORMAT, position, reason };
        match error {
            XzError::Data => corrupt("a checksum or the compressed data is wrong"),
            XzError::Format => corrupt("this is not the start of an xz stream"),
            XzError::Options => unsupported("it uses filters or options that liblzma does not know".into()),
            XzError::UnsupportedCheck | XzError::NoCheck => unsupported("it has no known integrity check".into()),
            XzError::MemLimit => unsupported(format!(
                "its dictionary needs more than {} MiB of memory; compress it with a smaller one",
                limits.memory >> 20
            )),
            XzError::Mem => unsupported("there is not enough memory".into()),
            XzError::Program => unsupported("liblzma reports a wrong call, a defect of this program".into()),
        }
    };
    let mut decoder = if threads > 1 {
        let mut builder = MtStreamBuilder::new();
        builder.threads(u32::try_from(threads).unwrap_or(u32::MAX).min(64));
        builder.memlimit_threading(limits.threading_memory).memlimit_stop(limits.memory);
        builder.decoder()
    } else {
        Stream::new_stream_decoder(limits.memory, 0)
    }
    .map_err(|error| wrong(error, source.position()))?;
    let mut stalled = false;
    loop {
        let position = source.position();
        let input = source.fill()?;
        let action = if input.is_empty() { Action::Finish } else { Action::Run };
        let (in_before, out_before) = (decoder.total_in(), decoder.total_out());
        let status = decoder.process(input, sink.space(), action);
        let consumed = (decoder.total_in() - in_before) as usize;
        let produced = (decoder.total_out() - out_before) as usize;
        let at_end = input.is_empty();
        source.advance(consumed);
        sink.advance(produced)?;
        match status.map_err(|error| wrong(error, position + consumed as u64))? {
            Status::StreamEnd => return Ok(()),
            // liblzma answers the second call in a row that can do nothing; with no input left that means truncation.
            Status::MemNeeded if at_end => {
                return Err(DecodeError::Truncated { format: FORMAT, position: source.position() });
            }
            Status::MemNeeded if stalled => {
                let reason = "the decoder makes no progress".into();
                return Err(DecodeError::Corrupt { format: FORMAT, position: source.position(), reason });
            }
            _ => stalled = consumed == 0 && produced == 0,
        }
    }
}

pub(super) fn zstd(source: &mut Source, sink: &mut Sink, limits: Limits) -> Result<(), DecodeError> {
    const FORMAT: &str = "zstd";
    let mut decoder = match zstd::stream::read::Decoder::with_buffer(&mut *source) {
        Ok(decoder) => decoder,
        Err(error) => return Err(decoder_error(FORMAT, error, source)),
    };
    // A window of half the limit leaves room for the decoder's other buffers.
    let window_log = (limits.memory / 2).max(1 << 10).ilog2().min(31);
    let result = match decoder.window_log_max(window_log) {
        Ok(()) => sink.copy_from(&mut decoder)?,
        Err(error) => Err(error),
    };
    drop(decoder);
    result.map_err(|error| decoder_error(FORMAT, error, source))
}

pub(super) fn gzip(source: &mut Source, sink: &mut Sink) -> Result<(), DecodeError> {
    let mut decoder = flate2::bufread::MultiGzDecoder::new(&mut *source);
    let result = sink.copy_from(&mut decoder)?;
    drop(decoder);
    result.map_err(|error| decoder_error("gzip", error, source))
}

/// What an [`io::Error`] out of a decoder means: an error of the input, a truncation, or corruption.
fn decoder_error(format: &'static str, error: io::Error, source: &mut Source) -> DecodeError {
    let position = source.position();
    if let Some(failure) = source.take_failure() {
        return failure;
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return DecodeError::Truncated { format, position };
    }
    let reason = error.to_string();
    if reason.contains("too much memory") {
        let reason = "its window needs too much memory; compress it without --long or --ultra".into();
        return DecodeError::Unsupported { format, position, reason };
    }
    DecodeError::Corrupt { format, position, reason }
}

/// The one member of an archive, or its one `*.img`. The digest is taken by a thread beside, as a ZIP is not read in order.
pub(super) fn zip(
    archive: Arc<dyn ReadAt>,
    sink: &mut Sink,
    shared: &Arc<Shared>,
) -> Result<(Digest, u64), DecodeError> {
    std::thread::scope(|scope| {
        let bytes = archive.clone();
        let digest = scope.spawn(move || {
            let mut source = Source::new(Box::new(Cursor::new(bytes)), shared.clone());
            source.drain()?;
            Ok(source.finish())
        });
        let decoded = zip_member(archive, sink);
        let digest = digest.join().unwrap_or(Err(DecodeError::Died));
        decoded?;
        digest
    })
}

fn zip_member(archive: Arc<dyn ReadAt>, sink: &mut Sink) -> Result<(), DecodeError> {
    const FORMAT: &str = "zip";
    let unsupported = |reason: String| DecodeError::Unsupported { format: FORMAT, position: 0, reason };
    let wrong = |error: zip::result::ZipError, position: u64| match error {
        zip::result::ZipError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            DecodeError::Truncated { format: FORMAT, position }
        }
        zip::result::ZipError::UnsupportedArchive(reason) => unsupported(reason.to_string()),
        error => DecodeError::Corrupt { format: FORMAT, position, reason: error.to_string() },
    };
    let size = archive.size().map_err(|error| DecodeError::Read { position: 0, error: Arc::new(error) })?;
    let mut archive = zip::ZipArchive::new(io::BufReader::new(Cursor::new(archive))).map_err(|e| wrong(e, size))?;
    let mut files = Vec::new();
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index).map_err(|e| wrong(e, size))?;
        if member.is_file() {
            let name = member.name_raw();
            let is_image =
                name.len() > 4 && name.get(name.len() - 4..).is_some_and(|e| e.eq_ignore_ascii_case(b".img"));
            files.push((index, is_image));
        }
    }
    let images: Vec<_> = files.iter().filter(|(_, is_image)| *is_image).collect();
    let index = match (files.as_slice(), images.as_slice()) {
        ([(index, _)], _) | (_, [(index, _)]) => *index,
        _ => {
            let (files, images) = (files.len(), images.len());
            return Err(unsupported(format!(
                "it holds {files} files, {images} of them *.img; exactly one file, or one *.img, is needed"
            )));
        }
    };
    let mut member = archive.by_index(index).map_err(|e| wrong(e, size))?;
    let start = member.data_start().unwrap_or_default();
    let name = String::from_utf8_lossy(member.name_raw()).into_owned();
    sink.copy_from(&mut member)?.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => DecodeError::Truncated { format: FORMAT, position: size },
        _ => DecodeError::Corrupt {
            format: FORMAT,
            position: size,
            reason: format!("member `{name}` from byte {start}: {error}"),
        },
    })
}
