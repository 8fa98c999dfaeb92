#!/bin/busybox sh
# The first process of a guest: it prepares what the tests stand on, runs what /runs says, tells of it in lines that begin
# with "@ hivemind", and ends the machine. Called with a run's name, a test program and a test, it runs that one test.
export PATH=/bin:/busybox HOME=/root

# What a test may take.
TEST_SECONDS=180

seconds() {
	cut -d. -f1 /proc/uptime
}

one_test() {
	output=/tmp/$1/$3
	begun=$(seconds)
	timeout -s KILL $TEST_SECONDS "$2" --exact "$3" --nocapture </dev/null >"$output" 2>&1
	status=$?
	echo "@ hivemind test $1 $status $(($(seconds) - begun)) $3"
	[ $status = 0 ] && grep -o "loaded: .*" "$output"
}

end() {
	echo "@ hivemind $*"
	# Waits until the console has said it all.
	stty onlcr </dev/console
	reboot -f
}

# run NAME FILTER PROGRAM [OPTION...]: the tests that filter and options leave, each in a process of its own, as many at
# once as there are processors; then what those printed that failed.
run() {
	name=$1 filter=$2 program=$3
	shift 3
	begun=$(seconds)
	mkdir "/tmp/$name"
	"$program" --list --format terse "$@" | sed -n 's/: test$//p' | grep -F -e "$filter" >"/tmp/$name.tests"
	echo "@ hivemind begin $name $(wc -l <"/tmp/$name.tests")"
	xargs -r -P "$(nproc)" -n 1 /init "$name" "$program" <"/tmp/$name.tests" 2>&1 | tee "/tmp/$name.told"
	sed -n "s/^@ hivemind test $name \([1-9][0-9]*\) [0-9]* /\1 /p" "/tmp/$name.told" | while read -r status test; do
		echo "-- $test: status $status"
		cat "/tmp/$name/$test"
	done
	echo "@ hivemind end $name $(($(seconds) - begun))"
}

if [ $$ != 1 ]; then
	one_test "$@"
	exit 0
fi

/bin/busybox --install -s /busybox
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf || end "stopped: no bpffs"
mount -t cgroup2 cgroup /sys/fs/cgroup || end "stopped: no cgroup v2"
echo "@ hivemind started $(uname -r)"
for module in /modules/*.ko; do
	insmod "$module" || end "stopped: cannot load $module"
done
ip link set lo up || end "stopped: no loopback interface"
hostname guest
. /runs
end finished
