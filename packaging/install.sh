#!/bin/sh
# Installs Hivemind from this directory. Run it as root; run it again to upgrade. It keeps an existing configuration.
#   PREFIX=/usr/local sh install.sh
set -eu
cd "$(dirname "$0")"
prefix=${PREFIX:-/usr/local}

if [ "$(id -u)" -ne 0 ]; then
    echo "install.sh needs root: sudo sh install.sh" >&2
    exit 1
fi
for program in containerd runc; do
    if ! command -v "$program" >/dev/null 2>&1; then
        missing="${missing:-} $program"
    fi
done
if [ -n "${missing:-}" ]; then
    echo "Missing on this machine:$missing. On Debian: apt-get install containerd runc" >&2
    exit 1
fi

getent group hivemind >/dev/null || groupadd --system hivemind
install -D -m 755 hivemind "$prefix/bin/hivemind"
[ -e /etc/hivemind/config.toml ] || install -D -m 644 config.toml /etc/hivemind/config.toml
for rules in prometheus/*; do
    install -D -m 644 "$rules" "$prefix/share/hivemind/$rules"
done
for completion in completions/*; do
    [ -e "$completion" ] || continue
    case $completion in
        *.bash) install -D -m 644 "$completion" "$prefix/share/bash-completion/completions/hivemind" ;;
        *.zsh) install -D -m 644 "$completion" "$prefix/share/zsh/site-functions/_hivemind" ;;
        *.fish) install -D -m 644 "$completion" "$prefix/share/fish/vendor_completions.d/hivemind.fish" ;;
    esac
done
echo "Installed $prefix/bin/hivemind."

if [ -d /run/systemd/system ]; then
    sed "s|/usr/bin/hivemind|$prefix/bin/hivemind|" hivemind.service > /etc/systemd/system/hivemind.service
    systemctl daemon-reload
    systemctl enable hivemind.service
    systemctl restart hivemind.service
    echo "The service hivemind runs. See: hivemind status"
else
    echo "Start it with: $prefix/bin/hivemind daemon"
fi
echo "To use hivemind without root: adduser YOU hivemind"
