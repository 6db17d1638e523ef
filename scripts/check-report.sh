#!/usr/bin/env bash
# check-report.sh PAGE.html [OUT] - opens a report in Chromium without a screen: pictures at 1280 and 360 px, light
# and dark, and the page as it prints, into OUT; fails where the console has an error or the page asks a network for
# anything. Not part of `make test`: where there is no Chromium it says so and exits 77.
set -euo pipefail
page=$(realpath "${1:?check-report.sh PAGE.html [OUT]}")
out=${2:-$(dirname "$page")/pictures}
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    echo "check-report: no Chromium here (apt-get install chromium)" >&2
    exit 77
fi
mkdir -p "$out"
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT

# look NAME [option...] - runs the browser; its log goes to OUT/NAME.log.
look() {
    local name=$1
    shift
    timeout 120 "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --disable-extensions \
        --host-resolver-rules='MAP * ~NOTFOUND' --user-data-dir="$profile" \
        --enable-logging=stderr --v=0 "$@" "file://$page" >"$out/$name.stdout" 2>"$out/$name.log" || {
        echo "check-report: the browser failed, see $out/$name.log" >&2
        exit 1
    }
}

# shot NAME WIDTH [option...] - the whole page, as high as it says that it is.
shot() {
    look "$1" --window-size="$2,${HEIGHT:-7000}" --screenshot="$out/$1.png" "${@:3}"
}

shot wide 1280
shot phone 500 # Chromium has no window below 500 px; the frame below is 360 px wide
cat >"$out/frame.html" <<END
<!DOCTYPE html><body style="margin:0"><iframe src="file://$page" width="360" height="${HEIGHT:-12000}" style="border:0">
END
page=$(realpath "$out/frame.html") look narrow --window-size="500,${HEIGHT:-12000}" \
    --screenshot="$out/narrow.png" --allow-file-access-from-files
shot dark 1280 --force-dark-mode --blink-settings=preferredColorScheme=0
look print --print-to-pdf="$out/page.pdf" --no-pdf-header-footer
look net --log-net-log="$out/net.json" --net-log-capture-mode=IncludeSensitive --dump-dom

bad=0
if grep -hE 'CONSOLE' "$out"/*.log; then
    echo "check-report: the console is not empty" >&2
    bad=1
fi
# Every request of the page: file:, data: and the browser's own pages are none.
if grep -oE '"url":"[a-z]+:[^"]*' "$out/net.json" | grep -vE '"url":"(file|data|chrome|chrome-extension|about|devtools|blob):' |
    grep -vE 'accounts\.google|googleapis|google\.com|gstatic' | sort -u | grep .; then
    echo "check-report: the page asked for something" >&2
    bad=1
fi
[ "$bad" = 0 ] || exit 1
echo "check-report: no console message, no request; pictures in $out"
