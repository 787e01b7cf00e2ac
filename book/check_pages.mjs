// Opens every page of the built book in Chromium, as a reader would, and says what is wrong with it.
//
//     node book/check_pages.mjs _build/html _build/node/node_modules
//
// Checked, in light and dark: axe-core, errors in the console, nothing fetched from a network. On a phone: no page
// wider than the screen. Without JavaScript: the text is there. axe-core and playwright-core come from npm
// (`make check-pages` installs them); the browser is the machine's own, CHROMIUM names another.
import { existsSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";

// What the theme (sphinx-book-theme 1.1.4) breaks on every page of every book: the search button's name, and its logo
// outside of landmarks. All else is ours.
const KNOWN = new Set(["label-content-name-mismatch", "region"]);
// On each first visit, as an error.
const THEME_SAYS = "Got invalid theme mode";
const PHONE = { width: 390, height: 844 };
const DESK = { width: 1300, height: 900 };
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

function pagesBelow(folder) {
  const found = [];
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    // The folders that start with _ hold the theme's own files and the sources.
    if (entry.isDirectory() && !entry.name.startsWith("_")) found.push(...pagesBelow(join(folder, entry.name)));
    if (entry.isFile() && entry.name.endsWith(".html")) found.push(join(folder, entry.name));
  }
  return found.sort();
}

// Opens an address in a page of its own; `look` gets it, and what it says is collected with what the browser complains of.
async function open(browser, address, options, look) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const faults = [];
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().startsWith(THEME_SAYS)) faults.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => faults.push(`script: ${error.message}`));
  page.on("request", (request) => /^https?:/.test(request.url()) && faults.push(`fetches ${request.url()}`));
  await page.goto(address, { waitUntil: "load" });
  faults.push(...(await look(page)));
  await context.close();
  return faults;
}

async function accessible(page, axe) {
  await page.addScriptTag({ path: axe });
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"], preload: false }));
  return violations
    .filter((violation) => !KNOWN.has(violation.id))
    .map(({ id, help, nodes }) => `${id}: ${help} (${nodes.length}, first ${nodes[0].target.join(" ")})`);
}

async function fitsTheScreen(page) {
  const [wide, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  return wide > screen ? [`is ${wide} pixels wide on a screen of ${screen}`] : [];
}

async function hasText(page) {
  const length = (await page.locator("article").first().innerText()).trim().length;
  return length < 20 ? ["has no text without JavaScript"] : [];
}

async function check(browser, file, site, axe) {
  const address = pathToFileURL(file).href;
  const faults = [];
  for (const colorScheme of ["light", "dark"]) {
    const found = await open(browser, address, { viewport: DESK, colorScheme }, (page) => accessible(page, axe));
    faults.push(...found.map((fault) => `${colorScheme}: ${fault}`));
  }
  const narrow = await open(browser, address, { viewport: PHONE, isMobile: true }, fitsTheScreen);
  faults.push(...narrow.map((fault) => `phone: ${fault}`));
  faults.push(...(await open(browser, address, { javaScriptEnabled: false }, hasText)));
  return faults.map((fault) => `${relative(site, file)}: ${fault}`);
}

const [folder, modules] = process.argv.slice(2);
const executablePath = process.env.CHROMIUM ?? BROWSERS.find(existsSync);
if (!modules || !executablePath) {
  console.error("Usage: node book/check_pages.mjs SITE NODE_MODULES, with Chromium or Chrome installed (or CHROMIUM=its path).");
  process.exit(2);
}
const site = resolve(folder);
const load = createRequire(join(resolve(modules), "x.js"));
const browser = await load("playwright-core").chromium.launch({ executablePath, args: ["--no-sandbox", "--allow-file-access-from-files"] });
// Redirects and the search page are the theme's.
const files = pagesBelow(site).filter((file) => !["index.html", "search.html", "genindex.html"].includes(relative(site, file)));
let count = 0;
for (const file of files) {
  for (const fault of await check(browser, file, site, load.resolve("axe-core/axe.min.js"))) {
    console.log(fault);
    count += 1;
  }
}
await browser.close();
console.log(count ? `${count} faults on ${files.length} pages` : `${files.length} pages are fine.`);
process.exit(count ? 1 : 0);
