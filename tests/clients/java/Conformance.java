import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/**
 * The Java client's part of the conformance tests; see scripted.rs for what goes in and out. With "records" as a fourth
 * argument it administers nothing: brokers are killed meanwhile, and what was done may be answered as refused.
 */
public final class Conformance {
    private static final List<String> COMPRESSIONS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    private final String brokers;
    private final String prefix;
    private final Path directory;

    private Conformance(String brokers, String prefix, Path directory) {
        this.brokers = brokers;
        this.prefix = prefix;
        this.directory = directory;
    }

    public static void main(String[] args) throws Exception {
        Conformance conformance = new Conformance(args[0], args[1], Path.of(args[2]));
        try (Admin admin = Admin.create(Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]))) {
            for (String compression : COMPRESSIONS) {
                conformance.records(admin, compression);
            }
            if (args.length < 4) {
                conformance.administration(admin);
            }
        }
    }

    private record Place(long middle, long timestamp) { }

    private void records(Admin admin, String compression) throws Exception {
        String topic = prefix + "-" + compression;
        NewTopic created = new NewTopic(topic, 3, (short) -1).configs(Map.of("retention.ms", "-1"));
        try {
            admin.createTopics(List.of(created)).all().get(30, TimeUnit.SECONDS);
        } catch (ExecutionException failed) {
            // The client asks again where a broker was killed before it answered, and finds its own.
            if (!(failed.getCause() instanceof TopicExistsException)) {
                throw failed;
            }
        }

        Map<Integer, Place> places = new TreeMap<>();
        for (String line : lines("places")) {
            String[] fields = line.split("\t");
            places.put(Integer.valueOf(fields[0]), new Place(Long.parseLong(fields[1]), Long.parseLong(fields[2])));
        }

        Map<String, Object> producing = new HashMap<>();
        producing.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        producing.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, compression);
        producing.put(ProducerConfig.BATCH_SIZE_CONFIG, 8192);
        producing.put(ProducerConfig.LINGER_MS_CONFIG, 5);
        Map<String, Object> consuming = new HashMap<>();
        consuming.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        consuming.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        consuming.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "none");
        consuming.put(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG, 20);
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(producing, new ByteArraySerializer(), new ByteArraySerializer());
            KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(consuming, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            write(compression, "acks", send(producer, topic, "records"));

            List<TopicPartition> partitions = places.keySet().stream().map(n -> new TopicPartition(topic, n)).toList();
            consumer.assign(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions, PATIENCE);

            consumer.seekToBeginning(partitions);
            write(compression, "start", read(consumer, ends));

            for (TopicPartition partition : partitions) {
                consumer.seek(partition, places.get(partition.partition()).middle());
            }
            write(compression, "middle", read(consumer, ends));

            Map<TopicPartition, Long> asked = new HashMap<>();
            partitions.forEach(p -> asked.put(p, places.get(p.partition()).timestamp()));
            Map<TopicPartition, OffsetAndTimestamp> found = consumer.offsetsForTimes(asked, PATIENCE);
            List<String> lookups = new ArrayList<>();
            for (TopicPartition partition : partitions) {
                long offset = found.get(partition).offset();
                lookups.add(partition.partition() + "\t" + offset);
                consumer.seek(partition, offset);
            }
            write(compression, "lookups", lookups);
            write(compression, "timestamp", read(consumer, ends));

            consumer.seekToEnd(partitions);
            Map<TopicPartition, Long> later = new HashMap<>();
            for (TopicPartition partition : partitions) {
                demand(consumer.position(partition, PATIENCE) == ends.get(partition), "the end of " + partition);
                later.put(partition, ends.get(partition) + 1);
            }
            demand(consumer.poll(Duration.ofMillis(50)).isEmpty(), "a consumer at the end was given something old");
            send(producer, topic, "extras");
            write(compression, "end", read(consumer, later));
        }
    }

    private List<String> send(KafkaProducer<byte[], byte[]> producer, String topic, String name) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (String line : lines(name)) {
            String[] fields = line.split("\t", -1);
            List<Header> headers = new ArrayList<>();
            for (String header : fields[4].split(",")) {
                if (!header.isEmpty()) {
                    String[] pair = header.split("=");
                    String key = new String(fromHex(pair[0]), StandardCharsets.UTF_8);
                    headers.add(new RecordHeader(key, fromHex(pair[1])));
                }
            }
            sent.add(producer.send(new ProducerRecord<>(topic, Integer.valueOf(fields[0]),
                Long.valueOf(fields[1]), fromHex(fields[2]), fromHex(fields[3]), headers)));
        }
        producer.flush();
        List<String> acks = new ArrayList<>();
        for (Future<RecordMetadata> future : sent) {
            RecordMetadata metadata = future.get(30, TimeUnit.SECONDS);
            acks.add(metadata.partition() + "\t" + metadata.offset());
        }
        return acks;
    }

    /** Everything from where the consumer stands to the given offsets. */
    private static List<String> read(KafkaConsumer<byte[], byte[]> consumer, Map<TopicPartition, Long> ends) {
        List<String> rows = new ArrayList<>();
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
            demand(System.nanoTime() < deadline, "only " + rows.size() + " records in " + PATIENCE);
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                List<String> headers = new ArrayList<>();
                for (Header header : record.headers()) {
                    headers.add(toHex(header.key().getBytes(StandardCharsets.UTF_8)) + "=" + toHex(header.value()));
                }
                rows.add(String.join("\t", String.valueOf(record.partition()), String.valueOf(record.offset()),
                    String.valueOf(record.timestamp()), toHex(record.key()), toHex(record.value()),
                    String.join(",", headers)));
            }
        }
        return rows;
    }

    /** What the admin client asks of a broker, on a topic of its own and on the one just written. */
    private void administration(Admin admin) throws Exception {
        var cluster = admin.describeCluster();
        String id = cluster.clusterId().get(30, TimeUnit.SECONDS);
        demand(id != null && !id.isEmpty(), "the cluster has no id");
        var nodes = cluster.nodes().get();
        demand(nodes.size() == brokers.split(",").length, "the nodes are " + nodes);
        demand(nodes.contains(cluster.controller().get()), "the controller is none of the nodes");

        String topic = prefix + "-admin";
        NewTopic create = new NewTopic(topic, 1, (short) -1).configs(Map.of("segment.bytes", "2097152"));
        var created = admin.createTopics(List.of(create));
        created.all().get(30, TimeUnit.SECONDS);
        Uuid topicId = created.topicId(topic).get();
        demand(!topicId.equals(Uuid.ZERO_UUID), "a created topic has no id");
        refused(TopicExistsException.class, admin.createTopics(List.of(create)).all());

        until(() -> admin.listTopics().names().get().contains(topic), "a created topic is not listed");
        TopicDescription description = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
        demand(description.topicId().equals(topicId), "another topic id is described");
        demand(description.partitions().size() == 1, "one partition expected, not " + description);

        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Config config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        demand("2097152".equals(config.get("segment.bytes").value()), "segment.bytes: " + config.get("segment.bytes"));
        demand(!config.get("segment.bytes").isDefault(), "segment.bytes was given and is shown as a default");
        demand("delete".equals(config.get("cleanup.policy").value()), "cleanup.policy: " + config.get("cleanup.policy"));

        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get(30, TimeUnit.SECONDS);
        until(() -> partitions(admin, topic) == 4, "4 partitions are not shown");

        // The topic of the last compression holds the extra record as the newest of partition 0.
        TopicPartition written = new TopicPartition(prefix + "-zstd", 0);
        ListOffsetsResultInfo first = offset(admin, written, OffsetSpec.earliest());
        ListOffsetsResultInfo last = offset(admin, written, OffsetSpec.latest());
        ListOffsetsResultInfo newest = offset(admin, written, OffsetSpec.maxTimestamp());
        demand(first.offset() == 0, "the earliest offset is " + first.offset());
        demand(last.offset() == newest.offset() + 1, "the newest record is at " + newest + ", the end at " + last);

        admin.deleteTopics(List.of(topic)).all().get(30, TimeUnit.SECONDS);
        until(() -> !admin.listTopics().names().get().contains(topic), "a deleted topic is still listed");
        refused(UnknownTopicOrPartitionException.class, admin.describeTopics(List.of(topic)).allTopicNames());
        refused(UnknownTopicOrPartitionException.class, admin.deleteTopics(List.of(topic)).all());
    }

    private static int partitions(Admin admin, String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
    }

    /** Brokers learn of a change a moment after the controller has answered. */
    private static void until(Callable<Boolean> holds, String otherwise) throws Exception {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (!holds.call()) {
            demand(System.nanoTime() < deadline, otherwise);
        }
    }

    private static ListOffsetsResultInfo offset(Admin admin, TopicPartition partition, OffsetSpec spec)
            throws Exception {
        return admin.listOffsets(Map.of(partition, spec)).partitionResult(partition).get(30, TimeUnit.SECONDS);
    }

    private static void refused(Class<?> expected, Future<?> future) throws Exception {
        try {
            future.get(30, TimeUnit.SECONDS);
        } catch (ExecutionException error) {
            demand(expected.isInstance(error.getCause()), expected + " expected, not " + error.getCause());
            return;
        }
        demand(false, expected + " expected, and it was done");
    }

    private static void demand(boolean holds, String what) {
        if (!holds) {
            throw new IllegalStateException(what);
        }
    }

    private List<String> lines(String name) throws IOException {
        return Files.readAllLines(directory.resolve(name + ".tsv"));
    }

    private void write(String compression, String what, List<String> rows) throws IOException {
        Files.write(directory.resolve(compression + "." + what + ".tsv"), rows);
    }

    private static byte[] fromHex(String text) {
        return text.equals("-") ? null : HexFormat.of().parseHex(text.substring(1));
    }

    private static String toHex(byte[] bytes) {
        return bytes == null ? "-" : "x" + HexFormat.of().formatHex(bytes);
    }
}
