# frames: what `perf script` prints of the server, with those inlined frames that help a reader.
#
#     perf script -F comm,tid,time,event,ip,sym,dso,srcline | awk -f perf/frames.awk $(find src -name '*.rs') -
#
# A release build inlines nearly all of a worker's turn into one function, so it is by inlined frames that a graph is
# read. Most of those are plumbing, of iterators and of the runtime, and would fill a screen. Kept are those of our own
# functions, under their module's name; functions that were not inlined are kept whoever wrote them.
#
# An inlined frame has a name without a module, and the name of a file and a line in it. It is ours if a file of ours
# has that name, and that line is in a function called so.

FILENAME ~ /\.rs$/ {
    lines[FILENAME] = FNR
    if (match($0, /fn [a-z0-9_]+/)) defined[FILENAME, FNR] = substr($0, RSTART + 3, RLENGTH - 3)
    next
}

# A frame; what it was is known with the next line.
/^\t/ {
    keep()
    frame = $0
    next
}

# The source of that frame.
/^  / {
    split($1, source, ":")
    name = frame ~ /\)$/ ? innermost(source[1], source[2], frame) : inlined(source[1], source[2], frame)
    if (name != "") frame = "\t" address(frame) " " name " (inlined)"
    keep()
    next
}

# The head of a sample, or its end.
{
    keep()
    print
}

# A frame that tells its program was not inlined, or became one of ours above.
function keep() {
    if (frame ~ /\)$/) print frame
    frame = ""
}

function address(frame,    word) {
    split(frame, word, " ")
    return word[1]
}

# perf names the innermost inlined frame after the function that it was inlined into. Of a function of ours, the source
# tells the right name, unless two files of ours could be meant.
function innermost(file, line, frame,    path, found, files) {
    if (frame !~ /^\t *[0-9a-f]+ <?fanfare::/) return ""
    for (path in lines) if (fits(path, file, line)) {
        found = path
        files++
    }
    return files == 1 && around(found, line) != "" ? module(found) "::" around(found, line) : ""
}

function inlined(file, line, frame,    word, path) {
    split(frame, word, " ")
    sub(/<.*/, "", word[2])
    for (path in lines) {
        if (fits(path, file, line) && around(path, line) == word[2]) return module(path) "::" word[2]
    }
    return ""
}

function fits(path, file, line) {
    return substr(path, length(path) - length(file)) == "/" file && line + 0 <= lines[path]
}

# The function that this line is in.
function around(path, line) {
    for (line += 0; line > 0; line--) if ((path, line) in defined) return defined[path, line]
    return ""
}

function module(path) {
    sub(/^.*src\//, "", path)
    sub(/(\/mod)?\.rs$/, "", path)
    gsub(/\//, "::", path)
    return path
}
