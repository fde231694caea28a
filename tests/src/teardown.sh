# Takes one lab down. Everything in it is found by the lab's own name, so nothing else is touched.
#
#   teardown.sh         now
#   teardown.sh wait    when standard input ends, which it does when the process that made the lab
#                       ends in whatever way; not at all if the line `keep` comes first
#
# LAB, CGROUP and DIRECTORY are set by the line before this text.
trap '' HUP INT TERM PIPE
if [ "$1" = wait ]; then
    word=
    read -r word
    [ "$word" = keep ] && exit 0
fi
status=0

# All processes of the lab, and their children, are in its cgroups.
if [ -e "$CGROUP/cgroup.kill" ]; then
    echo 1 >"$CGROUP/cgroup.kill"
elif [ -d "$CGROUP" ]; then
    find "$CGROUP" -name cgroup.procs -exec cat {} + | while read -r pid; do kill -9 "$pid"; done
fi

# A cgroup can be removed once its processes are gone: five seconds is ample.
attempt=0
while [ -d "$CGROUP" ]; do
    find "$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null
    [ -d "$CGROUP" ] || break
    attempt=$((attempt + 1))
    if [ $attempt -gt 250 ]; then
        echo "cgroup $CGROUP still has processes" >&2
        status=1
        break
    fi
    sleep 0.02
done

for mount in "$DIRECTORY"/*/bpf; do
    [ -d "$mount" ] || continue
    umount "$mount" || status=1
done

for namespace in /run/netns/"$LAB"-*; do
    [ -e "$namespace" ] && echo "netns del ${namespace##*/}"
done | ip -force -batch - || status=1

# A file system that is still mounted must not be emptied.
[ $status = 0 ] && { rm -rf "$DIRECTORY" || status=1; }
exit $status
