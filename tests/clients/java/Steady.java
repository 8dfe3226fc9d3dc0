import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/**
 * A producer with the client's own settings: each line that comes in is sent to partition 0 of a topic, and comes out when
 * it has been acknowledged.
 */
public final class Steady {
    private Steady() { }

    public static void main(String[] args) throws IOException {
        Map<String, Object> settings = Map.of(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                String value = line;
                producer.send(new ProducerRecord<>(args[1], 0, null, value), (stored, failed) -> {
                    if (failed == null) {
                        System.out.println(value);
                        System.out.flush();
                    }
                });
            }
        }
    }
}
