//! Outputs: the files that a run leaves. Opened before it begins: nobody wants to hear after an hour that the directory
//! does not exist.

use crate::error::{self, Error};
use crate::hlog;
use crate::options::Options;
use crate::report::Report;
use crate::views;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub struct Outputs {
    json: Option<Output>,
    csv: Option<Output>,
    html: Option<Output>,
    hdr: Option<Output>,
}

struct Output {
    option: &'static str,
    path: PathBuf,
    file: File,
}

impl Outputs {
    pub fn open(options: &Options) -> Result<Outputs, Error> {
        Ok(Outputs {
            json: Output::open("--json", options.json.as_deref())?,
            csv: Output::open("--csv", options.csv.as_deref())?,
            html: Output::open("--html", options.html.as_deref())?,
            hdr: Output::open("--hdr", options.hdr.as_deref())?,
        })
    }

    pub fn write(self, report: &Report) -> Result<(), Error> {
        let record = &report.record;
        put(self.json, |file| {
            serde_json::to_writer_pretty(&mut *file, record)?;
            file.write_all(b"\n")
        })?;
        put(self.csv, |file| file.write_all(views::csv(record).as_bytes()))?;
        put(self.html, |file| file.write_all(views::html(record).as_bytes()))?;
        put(self.hdr, |file| hlog::write(&report.delays, report.began, Duration::from_nanos(report.delivering), file))
    }
}

impl Output {
    fn open(option: &'static str, path: Option<&Path>) -> Result<Option<Output>, Error> {
        let Some(path) = path else { return Ok(None) };
        match File::create(path) {
            Ok(file) => Ok(Some(Output { option, path: path.to_owned(), file })),
            Err(error) => Err(unwritten(option, path, &error)),
        }
    }
}

fn put(output: Option<Output>, write: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>) -> Result<(), Error> {
    let Some(Output { option, path, file }) = output else { return Ok(()) };
    let mut file = io::BufWriter::new(file);
    write(&mut file).and_then(|()| file.flush()).map_err(|error| unwritten(option, &path, &error))
}

pub fn unwritten(option: &'static str, path: &Path, error: &io::Error) -> Error {
    Error::Report { option, path: path.display().to_string(), cause: error::cause(error) }
}
