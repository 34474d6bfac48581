# The tutorial's network with vlanfast on the trunk. What follows `@@ begin show` is for the reader.
set -eu
say() { echo; echo "# $*"; }
show() { echo "\$ $*"; "$@" 2>&1; }

# The router: the other end of the wire, with an address in each VLAN.
ip netns add router
ip link set eth1 name trunk netns router
in_router() { nsenter --net=/run/netns/router "$@"; }
# QEMU's NIC drops multicast that its guest has not asked for in time; a router takes all of it.
in_router ip link set trunk up promisc on
ip link set eth0 up
for v in 10 20; do
  in_router ip link add link trunk name trunk.$v type vlan id $v
  in_router ip addr add 10.0.$v.1/24 dev trunk.$v
  in_router ip addr add 2001:db8:babe:$v::1/64 dev trunk.$v nodad
  in_router ip link set trunk.$v up
done
in_router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'

echo "@@ step starting Docker"
dockerd --iptables=false --ip6tables=false --bridge=none -s overlay2 >/tmp/dockerd.log 2>&1 &
for _ in $(seq 120); do docker version >/dev/null 2>&1 && break; sleep 1; done
docker import -c 'CMD ["/sbin/my_init"]' /lab/image.tar lab/demo:latest >/dev/null
echo "@@ step making the networks macvlan10 and macvlan20"
for v in 10 20; do
  docker network create -d macvlan --subnet=10.0.$v.0/24 --gateway=10.0.$v.1 \
    --subnet=2001:db8:babe:$v::/64 --gateway=2001:db8:babe:$v::1 \
    -o parent=eth0.$v --ipv6 macvlan$v >/dev/null
done
echo "@@ step starting container0, container1 and container2"
run() { docker run --name="$1" --net="$2" --ip="$3" --ip6="$4" --detach=true lab/demo:latest >/dev/null; }
run container0 macvlan10 10.0.10.2 2001:db8:babe:10::2
run container2 macvlan20 10.0.20.4 2001:db8:babe:20::4
run container1 macvlan10 10.0.10.3 2001:db8:babe:10::3
docker network connect --ip=10.0.20.3 --ip6=2001:db8:babe:20::3 macvlan20 container1

# From here on a failure is part of what is shown.
set +e
echo "@@ begin show"
say "Put vlanfast on the trunk"
echo "\$ vlanfast attach eth0 &"
vlanfast attach eth0 &
attached=$!
for _ in $(seq 50); do ls /sys/fs/bpf/vlanfast/*:eth0/SETTINGS >/dev/null 2>&1 && break; sleep 0.2; done
sleep 2
failed=0
say "The containers on the trunk"
show vlanfast endpoints eth0 || failed=1
say "container1 reaches its neighbours on both VLANs, and the router"
for to in 10.0.10.2 10.0.20.4 10.0.10.1 2001:db8:babe:20::1; do
  show docker exec container1 ping -c 2 $to || failed=1
done
show vlanfast counters eth0 || failed=1
say "From VLAN 10 to VLAN 20 the way leads through the router"
show docker exec container0 traceroute -n 10.0.20.4 || failed=1
say "100 more pings to the router: VLAN 10 counts them both ways"
echo "\$ docker exec container0 ping -q -i 0.01 -c 100 10.0.10.1"
docker exec container0 ping -q -i 0.01 -c 100 10.0.10.1 | tail -n 2
show vlanfast counters eth0
say "Ctrl-C"
kill -INT $attached
wait $attached || failed=1
show vlanfast status
show ls /sys/fs/bpf
echo "@@ end show rc=$failed"
exit $failed
