// The pixels of outlines as ImageJ takes them, and outlines that ImageJ draws with theirs; see outlines.py.
//
// java -cp IJ_CLASSES ImagejMasks.java read FOLDER: for each x.zip, x.txt with the runs of its outlines
// java -cp IJ_CLASSES ImagejMasks.java draw FOLDER: outlines of all kinds as n.roi, and n.txt with the runs of each

import ij.gui.*;
import ij.io.RoiDecoder;
import ij.io.RoiEncoder;
import ij.process.ImageProcessor;
import java.awt.Rectangle;
import java.io.*;
import java.nio.file.*;
import java.util.*;
import java.util.zip.*;

public class ImagejMasks {
    static final int SIZE = 64;

    public static void main(String[] arguments) throws Exception {
        System.setProperty("java.awt.headless", "true");
        File folder = new File(arguments[1]);
        if (arguments[0].equals("read")) {
            for (File file : folder.listFiles((where, name) -> name.endsWith(".zip")))
                read(file);
        } else {
            draw(folder);
        }
    }

    static void read(File file) throws IOException {
        try (ZipInputStream in = new ZipInputStream(new FileInputStream(file));
                PrintWriter out = new PrintWriter(file.getPath().replace(".zip", ".txt"))) {
            for (ZipEntry entry = in.getNextEntry(); entry != null; entry = in.getNextEntry()) {
                Roi roi = new RoiDecoder(in.readAllBytes(), entry.getName()).getRoi();
                int place = Math.max(roi.getZPosition(), roi.getTPosition());
                writeRuns(roi, Integer.parseInt(roi.getProperty("label")), Math.max(place - 1, 0), out);
            }
        }
    }

    // A line for each run of pixels: label, place, y, first x, x behind the last
    static void writeRuns(Roi roi, int label, int place, PrintWriter out) {
        Rectangle box = roi.getBounds();
        ImageProcessor mask = roi.getMask();
        for (int y = 0; y < box.height; y++) {
            int begin = -1;
            for (int x = 0; x <= box.width; x++) {
                boolean inside = x < box.width && (mask == null || mask.get(x, y) != 0);
                if (inside && begin < 0)
                    begin = x;
                if (!inside && begin >= 0) {
                    out.println(label + " " + place + " " + (box.y + y) + " " + (box.x + begin) + " " + (box.x + x));
                    begin = -1;
                }
            }
        }
    }

    static void draw(File folder) throws IOException {
        Random random = new Random(1);
        for (int number = 0; number < 900; number++) {
            Roi roi = roi(number % 9, random);
            Files.write(new File(folder, number + ".roi").toPath(), RoiEncoder.saveAsByteArray(roi));
            // As decoded again, since some fractions are only kept in the file
            Roi again = new RoiDecoder(RoiEncoder.saveAsByteArray(roi), "x").getRoi();
            try (PrintWriter out = new PrintWriter(new File(folder, number + ".txt"))) {
                writeRuns(again, 1, number % 9, out);
            }
        }
    }

    static Roi roi(int kind, Random random) {
        int x = random.nextInt(20), y = random.nextInt(20), w = 3 + random.nextInt(40), h = 3 + random.nextInt(40);
        float[] xs = floats(random, 8), ys = floats(random, 8);
        int[] xi = new int[8], yi = new int[8];
        for (int n = 0; n < 8; n++) {
            xi[n] = (int) xs[n];
            yi[n] = (int) ys[n];
        }
        switch (kind) {
            case 0: return new Roi(x, y, w, h);
            case 1: return new Roi(x, y, w, h, 2 + random.nextInt(20));
            case 2: return new OvalRoi(x, y, w, h);
            case 3: return new PolygonRoi(xi, yi, 8, Roi.POLYGON);
            case 4: return new PolygonRoi(xs, ys, 8, Roi.FREEROI);
            case 5: return new EllipseRoi(xs[0], ys[0], xs[1], ys[1], 0.2 + 0.8 * random.nextDouble());
            case 6: return new RotatedRectRoi(xs[0], ys[0], xs[1], ys[1], 2 + 20 * random.nextDouble());
            case 7: {
                float[] cx = new float[8], cy = new float[8];
                for (int n = 0; n < 8; n++) {
                    double r = 10 + 15 * random.nextDouble();
                    cx[n] = (float) (32 + r * Math.cos(n * Math.PI / 4));
                    cy[n] = (float) (32 + r * Math.sin(n * Math.PI / 4));
                }
                PolygonRoi spline = new PolygonRoi(cx, cy, 8, Roi.POLYGON);
                spline.fitSpline();
                return spline;
            }
            default: {
                ShapeRoi both = new ShapeRoi(new OvalRoi(x, y, w, h));
                return both.xor(new ShapeRoi(new PolygonRoi(xi, yi, 8, Roi.POLYGON)));
            }
        }
    }

    static float[] floats(Random random, int n) {
        float[] values = new float[n];
        for (int i = 0; i < n; i++)
            values[i] = 2 + 58 * random.nextFloat();
        return values;
    }
}
