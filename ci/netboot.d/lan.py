"""A local network in namespaces: a bridge with taps for nodes and a DHCP server, and namespaces for replicas of the server."""
import subprocess

BRIDGE = "lan"
ADDRESS = "192.168.76.1"
JUDGE = "192.168.76.254"


def ip(*arguments, good=True):
    subprocess.run(["ip", *arguments], check=good, stdout=subprocess.DEVNULL, stderr=None if good else subprocess.DEVNULL)


def make_bridge():
    ip("link", "set", "lo", "up")
    ip("link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
    ip("address", "add", f"{JUDGE}/24", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")


def make_tap(name):
    ip("tuntap", "add", "dev", name, "mode", "tap")
    ip("link", "set", name, "master", BRIDGE, "up")


def make_host(name, address):
    """A namespace with one interface in the network."""
    ip("netns", "add", name)
    ip("link", "add", f"{name}-lan", "type", "veth", "peer", "name", "eth0", "netns", name)
    ip("link", "set", f"{name}-lan", "master", BRIDGE, "up")
    for command in (["link", "set", "lo", "up"], ["link", "set", "eth0", "up"]):
        ip("-n", name, *command)
    take(name, address)


def take(name, address):
    ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
    # Who had the address before is forgotten by all.
    subprocess.run(["ip", "netns", "exec", name, "arping", "-q", "-U", "-c", "2", "-I", "eth0", address], check=False)


def give_up(name, address):
    ip("-n", name, "address", "del", f"{address}/24", "dev", "eth0")


def within(name, command):
    return ["ip", "netns", "exec", name, *command]
