"""kafka-python's part of the conformance tests; see scripted.rs for what goes in and out."""

import sys
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

BROKERS, PREFIX, DIRECTORY = sys.argv[1:]


def from_hex(text):
    return None if text == "-" else bytes.fromhex(text[1:])


def to_hex(data):
    return "-" if data is None else "x" + data.hex()


def events(name):
    """The partition and the arguments of a send for each line of a file."""
    for line in open(f"{DIRECTORY}/{name}.tsv"):
        partition, timestamp, key, value, headers = line.rstrip("\n").split("\t")
        pairs = (header.split("=") for header in headers.split(",") if header)
        yield int(partition), {
            "timestamp_ms": int(timestamp),
            "key": from_hex(key),
            "value": from_hex(value),
            "headers": [(from_hex(name).decode(), from_hex(value)) for name, value in pairs],
        }


def write(compression, what, rows):
    with open(f"{DIRECTORY}/{compression}.{what}.tsv", "w") as file:
        for row in rows:
            file.write("\t".join(map(str, row)) + "\n")


def row(record):
    headers = ",".join(to_hex(name.encode()) + "=" + to_hex(value) for name, value in record.headers)
    key, value = to_hex(record.key), to_hex(record.value)
    return (record.partition, record.offset, record.timestamp, key, value, headers)


def read(consumer, ends):
    """Everything from where the consumer stands to the given offsets."""
    rows = []
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        for records in consumer.poll(timeout_ms=200).values():
            rows += [row(record) for record in records]
    return rows


def send(producer, topic, name):
    sent = [
        (partition, producer.send(topic, partition=partition, **event))
        for partition, event in events(name)
    ]
    producer.flush()
    return [(partition, future.get(timeout=30).offset) for partition, future in sent]


def create(topic):
    """The admin client fails where the broker that it asks is killed, and does not try another one."""
    deadline = time.monotonic() + 30
    asked_again = False
    while True:
        try:
            admin = KafkaAdminClient(bootstrap_servers=BROKERS)
            try:
                admin.create_topics([NewTopic(topic, 3, -1, topic_configs={"retention.ms": "-1"})])
            finally:
                admin.close()
            return
        except TopicAlreadyExistsError:
            if not asked_again:
                raise
            return
        except KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise
        asked_again = True
        time.sleep(0.05)


def check(compression, places):
    topic = f"{PREFIX}-{compression}"
    create(topic)

    producer = KafkaProducer(
        bootstrap_servers=BROKERS,
        acks="all",
        compression_type=None if compression == "none" else compression,
        linger_ms=5,
        batch_size=8192,
    )
    write(compression, "acks", send(producer, topic, "records"))

    consumer = KafkaConsumer(
        bootstrap_servers=BROKERS,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        check_crcs=True,
        fetch_max_wait_ms=20,
    )
    partitions = {number: TopicPartition(topic, number) for number in places}
    consumer.assign(list(partitions.values()))
    ends = consumer.end_offsets(list(partitions.values()))

    consumer.seek_to_beginning()
    write(compression, "start", read(consumer, ends))

    for number, (middle, _) in places.items():
        consumer.seek(partitions[number], middle)
    write(compression, "middle", read(consumer, ends))

    asked = {partitions[number]: timestamp for number, (_, timestamp) in places.items()}
    found = consumer.offsets_for_times(asked)
    write(compression, "lookups", [(number, found[partitions[number]].offset) for number in places])
    for partition, answer in found.items():
        consumer.seek(partition, answer.offset)
    write(compression, "timestamp", read(consumer, ends))

    consumer.seek_to_end()
    for partition, end in ends.items():
        assert consumer.position(partition) == end, (partition, consumer.position(partition), end)
    assert consumer.poll(timeout_ms=50) == {}, "a consumer at the end was given something old"
    send(producer, topic, "extras")
    write(compression, "end", read(consumer, {partition: end + 1 for partition, end in ends.items()}))
    consumer.close()
    producer.close()


def main():
    places = {}
    for line in open(f"{DIRECTORY}/places.tsv"):
        number, middle, timestamp = map(int, line.split())
        places[number] = (middle, timestamp)
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"]:
        check(compression, places)


main()
